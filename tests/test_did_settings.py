"""What an operator says about DIDs is read whole, and whatever is wrong with it is told at the start."""

from pathlib import Path

import pytest

from attach import ConfigurationError, Settings
from auth import DIDSettings
from tests.dids import account, did_key, person
from tests.servers import Engine, client_of, serve_gateway

OIDC = {"OIDC_ISSUER": "https://issuer.test", "OIDC_AUD": "gateway"}
KEY = person("EdDSA").did
ACCOUNT = account().did


def did_settings(**environ: str) -> DIDSettings:
    return Settings.from_environ({**OIDC, **environ}).did


def faults(**environ: str) -> list[str]:
    with pytest.raises(ConfigurationError) as refused:
        did_settings(**environ)
    return [str(fault) for fault in refused.value.faults]


def test_by_default_nobody_signs_in_with_a_did() -> None:
    wanted = did_settings()
    assert (wanted.login, wanted.allow, wanted.possible) == ("allowlist", frozenset(), False)
    assert (wanted.max_lifetime, wanted.chains, wanted.once, wanted.leeway) == (900.0, frozenset({1}), False, 60.0)
    assert wanted.audiences == ("http://localhost:8080",)


def test_in_dev_mode_everybody_does() -> None:
    assert Settings.for_dev({"DID_LOGIN": "off"}).did.login == "open"


@pytest.mark.parametrize(
    "text",
    [
        f"{KEY},{ACCOUNT}",
        f"{KEY}\n{ACCOUNT}\n",
        f"  {KEY} ,\n , {ACCOUNT.lower()}  ",
        f"{KEY} {ACCOUNT}",
    ],
)
def test_a_list_has_commas_or_lines(text: str) -> None:
    wanted = did_settings(DID_ALLOW=text)
    assert wanted.allow == {KEY, ACCOUNT}
    assert wanted.possible


def test_a_list_may_be_a_file_with_comments(tmp_path: Path) -> None:
    file = tmp_path / "dids.txt"
    file.write_text(f"# Alice\n{KEY}\n\n  # Bob, did:key:zNobody\n{ACCOUNT}\n")
    assert did_settings(DID_ALLOW=str(file)).allow == {KEY, ACCOUNT}


def test_off_is_nobody_whoever_is_listed() -> None:
    assert not did_settings(DID_ALLOW=KEY, DID_LOGIN="off").possible


def test_audiences_are_the_public_url_and_those_that_are_named() -> None:
    assert did_settings(PORT="9999").audiences == ("http://localhost:9999",)
    wanted = did_settings(PUBLIC_URL="https://gateway.test/", DID_AUD="https://chat.test, urn:gateway")
    assert wanted.audiences == ("https://gateway.test", "https://chat.test", "urn:gateway")


def test_chains_and_lifetime_and_replay_are_settings() -> None:
    wanted = did_settings(DID_CHAINS="1, 10,0", DID_MAX_LIFETIME="86400", DID_REPLAY="once")
    assert (wanted.chains, wanted.max_lifetime, wanted.once) == (frozenset({0, 1, 10}), 86400.0, True)


@pytest.mark.parametrize(
    ("environ", "fault"),
    [
        ({"DID_LOGIN": "yes"}, "DID_LOGIN is 'yes': choose one of off, allowlist, open"),
        ({"DID_REPLAY": "on"}, "DID_REPLAY is 'on': choose one of off, once"),
        ({"DID_MAX_LIFETIME": "86401"}, "DID_MAX_LIFETIME is 86401: give at most 86400"),
        ({"DID_MAX_LIFETIME": "0"}, "DID_MAX_LIFETIME is '0': give seconds above 0, such as 900"),
        ({"DID_CHAINS": "1,mainnet"}, "DID_CHAINS has 'mainnet': list chain ids as decimal numbers, such as 1,10"),
        ({"DID_CHAINS": "01"}, "DID_CHAINS has '01': list chain ids as decimal numbers, such as 1,10"),
        ({"DID_ALLOW": "did:key:z6Mk"}, "DID_ALLOW has 'did:key:z6Mk': "),
        ({"DID_ALLOW": f"{KEY}#key"}, f"DID_ALLOW has '{KEY}#key': The DID is malformed."),
        ({"DID_ALLOW": "did:web:a.test"}, "DID_ALLOW has 'did:web:a.test': did:web is not taken yet"),
        (
            {"DID_ALLOW": ACCOUNT.replace(":1:", ":137:")},
            f"DID_ALLOW has '{ACCOUNT.replace(':1:', ':137:')}': add the account's chain id to DID_CHAINS",
        ),
        ({"DID_ALLOW": f"{KEY},alice"}, "DID_ALLOW has 'alice': The DID is malformed."),
        ({"DID_ALLOW": "/nowhere/dids"}, "DID_ALLOW is '/nowhere/dids', which is neither a DID nor a file"),
        ({"DID_ALLOW": "~nobody-of-that-name/x"}, "DID_ALLOW is '~nobody-of-that-name/x', which is neither"),
        ({"DID_ALLOW": did_key(b"\xed\x01", bytes(32))}, "DID_ALLOW has 'did:key:"),
    ],
    ids=str,
)
def test_what_is_wrong_is_told(environ: dict[str, str], fault: str) -> None:
    [told] = faults(**environ)
    assert told.startswith(fault)


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    told = faults(DID_LOGIN="?", DID_CHAINS="x", DID_ALLOW=str(tmp_path / "binary"), DID_REPLAY="?")
    assert [fault.split(" ")[0] for fault in told] == ["DID_CHAINS", "DID_LOGIN", "DID_ALLOW", "DID_REPLAY"]


def test_a_list_of_any_size_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "huge").write_bytes(b"#" * (4 * 1024 * 1024 + 1))
    assert "neither a DID nor a file" in faults(DID_ALLOW=str(tmp_path / "huge"))[0]


def test_an_issuer_is_needed_unless_a_did_can_sign_in() -> None:
    for environ in ({"DID_ALLOW": KEY}, {"DID_LOGIN": "open"}):
        assert Settings.from_environ(environ).issuers == ()
    for environ in ({}, {"DID_LOGIN": "allowlist"}, {"DID_LOGIN": "off", "DID_ALLOW": KEY}):
        with pytest.raises(ConfigurationError, match="OIDC_ISSUER is missing"):
            Settings.from_environ(environ)


async def test_a_gateway_without_any_issuer_is_ready_and_serves(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "auth")
    async with Engine() as engine:
        environ = {"DID_ALLOW": KEY, "ENGINE_URL": engine.url, "ATTACH_DATA_DIR": str(tmp_path), "DRAIN_DELAY": "0"}
        async with serve_gateway(Settings.from_environ(environ)) as gateway, client_of(gateway.url) as client:
            assert (await client.get("/readyz")).json() == {"status": "ok"}
            token = person("EdDSA").token(aud="http://localhost:8080/")
            answer = await client.get("/x", headers={"Authorization": f"Bearer {token}"})
            assert (answer.status_code, answer.headers["x-attach-user"]) == (200, KEY)
            config = (await client.get("/auth/config")).json()
    assert config["issuer"] is None
    assert "did." not in caplog.text  # There is nothing that may surprise.


@pytest.mark.parametrize(
    ("environ", "said"),
    [({}, "did.nobody_allowed"), ({"DID_LOGIN": "open"}, "did.open_to_everybody"), ({"DID_LOGIN": "off"}, None)],
    ids=str,
)
async def test_the_start_says_how_to_allow_and_what_is_open(
    environ: dict[str, str], said: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "auth")
    wanted = Settings.from_environ({**OIDC, "ATTACH_DATA_DIR": str(tmp_path), "DRAIN_DELAY": "0", **environ})
    async with serve_gateway(wanted):
        pass
    told = [record for record in caplog.records if record.message.startswith("did.")]
    assert [record.message for record in told] == ([said] if said else [])
    assert all("DID_ALLOW" in record.__dict__["mend"] for record in told)

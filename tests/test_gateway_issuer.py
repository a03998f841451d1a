"""The gateway signs with a key that only it can read, and each kind of its tokens is good for one thing."""

import json
import multiprocessing
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from auth import (
    GatewayIssuer,
    InvalidToken,
    LocalVerifier,
    RememberingVerifier,
    SigningKeyError,
    TokenPicker,
    load_or_create,
)
from auth.issuer import DEV_AUDIENCE, DEV_ISSUER, DEV_TYPE
from auth.jws import parse
from auth.signing_keys import KEY_FILE
from auth.strict import decode_base64url
from tests.clock import Clock
from tests.issuer import b64, hs256, make_key


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "deep" / ".attach"


@pytest.fixture
def gateway(directory: Path) -> GatewayIssuer:
    return load_or_create(directory)


@pytest.fixture
def verifier(gateway: GatewayIssuer, clock: Clock) -> LocalVerifier:
    return LocalVerifier(gateway, clock)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_key_is_made_once_and_for_its_owner_alone(directory: Path) -> None:
    made = load_or_create(directory)
    assert (mode(directory), mode(directory / KEY_FILE)) == (0o700, 0o600)
    assert load_or_create(directory).kid == made.kid
    assert [path.name for path in directory.iterdir()] == [KEY_FILE]


def test_another_directory_is_another_gateway(tmp_path: Path) -> None:
    assert load_or_create(tmp_path / "a").kid != load_or_create(tmp_path / "b").kid


def _kid_of(directory: Path, start: Any, kids: Any) -> None:
    start.wait()
    kids.put(load_or_create(directory).kid)


def test_processes_that_start_together_have_the_same_key(directory: Path) -> None:
    processes = multiprocessing.get_context("spawn")
    start, kids = processes.Barrier(4), processes.SimpleQueue()
    workers = [processes.Process(target=_kid_of, args=(directory, start, kids)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(40)
    assert [worker.exitcode for worker in workers] == [0, 0, 0, 0]
    assert len({kids.get() for _ in workers}) == 1
    assert [path.name for path in directory.iterdir()] == [KEY_FILE]


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o644, 0o660])
def test_a_key_that_others_can_read_is_not_used(directory: Path, bits: int) -> None:
    load_or_create(directory)
    (directory / KEY_FILE).chmod(bits)
    with pytest.raises(SigningKeyError, match="chmod 600"):
        load_or_create(directory)


def pem_of_another_type() -> bytes:
    return make_key("ES256").private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    "content",
    [b"", b"junk", b"-----BEGIN PRIVATE KEY-----\n", pem_of_another_type()],
    ids=["empty", "junk", "cut", "ec"],
)
def test_a_damaged_key_is_not_replaced_in_silence(directory: Path, content: bytes) -> None:
    load_or_create(directory)
    (directory / KEY_FILE).write_bytes(content)
    with pytest.raises(SigningKeyError, match="remove it to have a new one"):
        load_or_create(directory)
    assert (directory / KEY_FILE).read_bytes() == content


def test_a_place_that_cannot_hold_a_key_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SigningKeyError, match="cannot hold"):
        load_or_create(tmp_path / "file")


def test_the_key_s_name_is_its_thumbprint() -> None:
    # RFC 8037 appendices A.1 and A.3.
    seed = decode_base64url("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A")
    gateway = GatewayIssuer(Ed25519PrivateKey.from_private_bytes(seed))
    assert gateway.kid == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


async def test_a_dev_token_names_its_user_for_twelve_hours(
    gateway: GatewayIssuer, verifier: LocalVerifier, clock: Clock
) -> None:
    token = gateway.dev_token("dev", now=clock())
    identity = await verifier.verify(token)
    assert (identity.user, identity.subject, identity.scheme, identity.issuer) == ("dev", "dev", "dev", DEV_ISSUER)
    clock.advance(12 * 3600 - 1)
    await verifier.verify(token)
    clock.advance(1)
    with pytest.raises(InvalidToken, match="expired"):
        await verifier.verify(token)


async def test_a_dev_token_is_good_at_another_process_of_the_same_gateway(directory: Path, clock: Clock) -> None:
    token = load_or_create(directory).dev_token("dev", now=clock())
    picker = TokenPicker([LocalVerifier(load_or_create(directory), clock)])
    verifier = RememberingVerifier(picker, clock)
    assert verifier.ready
    assert (await verifier.verify(token)).user == "dev"
    assert (await verifier.verify(token)).user == "dev"


async def test_another_gateway_s_dev_token_is_refused(verifier: LocalVerifier, tmp_path: Path, clock: Clock) -> None:
    with pytest.raises(InvalidToken) as refused:
        await verifier.verify(load_or_create(tmp_path / "other").dev_token("dev", now=clock()))
    assert refused.value.reason == "unknown_kid"


@pytest.mark.parametrize("user", ["", " dev", "dev\n", "dév", "did:key:z6Mk", "d" * 1025])
def test_a_dev_token_is_not_made_for_a_name_that_cannot_be_used(
    gateway: GatewayIssuer, clock: Clock, user: str
) -> None:
    with pytest.raises(InvalidToken):
        gateway.dev_token(user, now=clock())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"iss": "attach"}, "issuer", id="another-issuer"),
        pytest.param({"iss": None}, "issuer", id="no-issuer"),
        pytest.param({"aud": "other"}, "audience", id="another-audience"),
        pytest.param({"aud": None}, "audience", id="no-audience"),
        pytest.param({"exp": None}, "claims", id="no-exp"),
        pytest.param({"iat": None}, "claims", id="no-iat"),
        pytest.param({"exp": 1}, "expired", id="expired"),
        pytest.param({"iat": 9_999_999_999}, "early", id="issued-in-the-future"),
        pytest.param({"cnf": {}}, "bound", id="bound"),
        pytest.param({"sub": None}, "claims", id="no-sub"),
        pytest.param({"sub": "did:key:z6Mk"}, "user", id="did"),
    ],
)
async def test_a_dev_token_must_say_everything(
    gateway: GatewayIssuer, verifier: LocalVerifier, clock: Clock, changes: dict[str, Any], reason: str
) -> None:
    claims = {**parse(gateway.dev_token("dev", now=clock())).claims, **changes}
    token = gateway.sign(DEV_TYPE, {name: value for name, value in claims.items() if value is not None})
    with pytest.raises(InvalidToken) as refused:
        await verifier.verify(token)
    assert refused.value.reason == reason


@pytest.mark.parametrize(
    "typ", ["JWT", "at+jwt", "attach-identity+jwt", "attach-dev+JWT", "", "application/attach-dev+jwt"]
)
async def test_every_other_kind_of_our_tokens_is_refused_as_a_dev_token(
    gateway: GatewayIssuer, verifier: LocalVerifier, clock: Clock, typ: str
) -> None:
    claims = parse(gateway.dev_token("dev", now=clock())).claims
    with pytest.raises(InvalidToken) as refused:
        await verifier.verify(gateway.sign(typ, claims))
    assert refused.value.reason == "type"


async def test_a_forged_dev_token_is_refused(gateway: GatewayIssuer, verifier: LocalVerifier, clock: Clock) -> None:
    head, claims, signature = gateway.dev_token("dev", now=clock()).split(".")
    root = gateway.dev_token("root", now=clock()).split(".")[1]
    secret = decode_base64url(dict(gateway.verifying_key.public)["x"])
    header = json.loads(decode_base64url(head))
    unsigned = [f"{segment({**header, 'alg': alg})}.{claims}." for alg in ("none", "HS256", "EdDSA")]
    mac = segment({**header, "alg": "HS256"}) + "." + claims
    for forged in (f"{head}.{root}.{signature}", *unsigned, f"{mac}.{b64(hs256(secret)(mac.encode()))}"):
        with pytest.raises(InvalidToken) as refused:
            await verifier.verify(forged)
        assert refused.value.reason == "signature"


def segment(members: dict[str, Any]) -> str:
    return b64(json.dumps(members).encode())


def test_what_is_signed_is_what_was_given(gateway: GatewayIssuer) -> None:
    token = parse(gateway.sign("attach-test+jwt", {"sub": "é", "aud": DEV_AUDIENCE}))
    assert token.header == {"alg": "EdDSA", "kid": gateway.kid, "typ": "attach-test+jwt"}
    assert token.claims == {"sub": "é", "aud": DEV_AUDIENCE}

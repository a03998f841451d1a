"""What an operator sets is what holds; what is wrong is told at once, with the mend and without a secret."""

import re
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path

import pytest

from attach import ConfigurationError, Settings
from attach.check import effective
from attach.env_file import EnvFile
from attach.environment import Environment, read_environ
from attach.variables import VARIABLES, Variable
from auth.jwk import ALGORITHMS
from tests.servers import ROOT

ENOUGH = {"OIDC_ISSUER": "https://issuer.example/", "OIDC_AUD": "https://models.example"}
DOCUMENT = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")


def settings(**variables: str) -> Settings:
    return Settings.from_environ({**ENOUGH, **variables})


def faults(environ: Mapping[str, str]) -> dict[str, str]:
    """What is told about each variable."""
    with pytest.raises(ConfigurationError) as told:
        Settings.from_environ(environ)
    return {fault.name: str(fault) for fault in told.value.faults}


def fault(**variables: str) -> str:
    """The one thing that is wrong with these variables."""
    (sentence,) = faults({**ENOUGH, **variables}).values()
    return sentence


# The table, .env.example and docs/configuration.md


def test_the_example_sets_every_variable_to_its_default() -> None:
    example = EnvFile.read(ROOT / ".env.example")
    assert list(example.lines.items()) == [(variable.name, variable.default) for variable in VARIABLES]


def test_the_example_says_what_each_variable_is_for() -> None:
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    for variable in VARIABLES:
        unit = f" ({variable.unit})" if variable.unit else ""
        assert f"# {variable.about}{unit}\n{variable.name}={variable.default}\n" in text


def documented() -> list[Variable]:
    rows = re.findall(r"^\| `([A-Z0-9_]+)` \|(.*)\|(.*)\|(.*)\|$", DOCUMENT, re.MULTILINE)
    secrets = {variable.name for variable in VARIABLES if variable.secret}
    return [
        Variable(name, default.strip(" `"), about.strip(), unit.strip(), secret=name in secrets)
        for name, default, unit, about in rows
    ]


def test_the_document_lists_what_the_table_holds() -> None:
    assert sorted(documented(), key=lambda row: row.name) == sorted(VARIABLES, key=lambda row: row.name)


def test_the_document_names_the_units_and_the_algorithms_that_there_are() -> None:
    explained = set(re.findall(r"^- \*\*(.+?)\*\*: ", DOCUMENT, re.MULTILINE))
    assert explained == {variable.unit for variable in VARIABLES} - {""}
    line = next(line for line in DOCUMENT.splitlines() if line.startswith("Algorithms are "))
    assert re.findall(r"`(\w+)`", line) == list(ALGORITHMS)


def test_every_default_is_a_value_that_is_taken() -> None:
    given = {variable.name: variable.default for variable in VARIABLES if variable.default}
    assert settings(**given) == settings()


# What is taken


def test_what_is_not_set_is_as_the_document_says() -> None:
    plain = settings()
    assert (plain.engine.url, plain.engine.connect_timeout, plain.engine.read_timeout) == (
        "http://localhost:11434",
        5.0,
        600.0,
    )
    assert (plain.server.host, plain.server.port) == ("127.0.0.1", 8080)
    assert (plain.server.drain_delay, plain.server.shutdown_grace) == (5.0, 30.0)
    assert plain.cors_origins == ("http://localhost:9000", "http://127.0.0.1:9000")
    assert (plain.max_request_bytes, plain.data_dir, plain.api_docs) == (32 * 1024 * 1024, Path(".attach"), True)
    assert plain.oidc is not None
    assert plain.oidc.algorithms == ("RS256", "ES256", "EdDSA")


@pytest.mark.parametrize("nothing", ["", " ", "\t"], ids=["empty", "a space", "a tab"])
def test_empty_is_unset(nothing: str) -> None:
    every = {variable.name: nothing for variable in VARIABLES}
    assert Settings.from_environ({**every, **ENOUGH}) == settings()
    assert set(faults(every)) == {"OIDC_ISSUER", "OIDC_AUD"}


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("1024", 1024), ("64k", 65536), ("32m", 33554432), ("32 MiB", 33554432), ("2G", 2 << 30), ("1kB", 1024)],
)
def test_sizes_may_have_a_unit(text: str, size: int) -> None:
    assert settings(MAX_REQUEST_BYTES=text).max_request_bytes == size


@pytest.mark.parametrize(
    "text", ["0", "-1", "1.5m", "m", "ten", "1e3", "9" * 5000, "32t", "٣٢"], ids=lambda text: text[:8]
)
def test_what_is_no_size_is_told(text: str) -> None:
    assert "give bytes, such as 33554432 or 32m" in fault(MAX_REQUEST_BYTES=text)


@pytest.mark.parametrize(("text", "seconds"), [("5", 5.0), ("0.25", 0.25), ("1e2", 100.0), (" 7 ", 7.0)])
def test_durations_are_seconds(text: str, seconds: float) -> None:
    assert settings(ENGINE_READ_TIMEOUT=text).engine.read_timeout == seconds


@pytest.mark.parametrize(
    "text", ["nan", "inf", "-inf", "-1", "1e400", "5s", "0", "five", "9" * 5000], ids=lambda t: t[:8]
)
def test_what_is_no_duration_is_told(text: str) -> None:
    assert "give seconds above 0, such as 600" in fault(ENGINE_READ_TIMEOUT=text)


def test_not_waiting_at_all_is_a_way_to_stop() -> None:
    stopping = settings(DRAIN_DELAY="0", SHUTDOWN_GRACE="0").server
    assert (stopping.drain_delay, stopping.shutdown_grace) == (0.0, 0.0)
    assert "give seconds from 0 on" in fault(DRAIN_DELAY="-0.1")


@pytest.mark.parametrize("text", ["-1", "65536", "http", "8080.0", "+80", "9" * 5000, "٨"], ids=lambda t: ascii(t[:8]))
def test_what_is_no_port_is_told(text: str) -> None:
    assert "give a whole number from 0 to 65535" in fault(PORT=text)


@pytest.mark.parametrize("text", ["ON", "true", "Yes", "1"])
def test_on_has_four_names(text: str) -> None:
    assert settings(API_DOCS=text).api_docs


@pytest.mark.parametrize("text", ["off", "FALSE", "no", "0"])
def test_off_has_four_names(text: str) -> None:
    assert not settings(API_DOCS=text).api_docs


def test_there_is_nothing_between_on_and_off() -> None:
    assert fault(API_DOCS="maybe") == "API_DOCS is 'maybe': write on or off"


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("0.0.0.0", "0.0.0.0"),
        ("localhost", "localhost"),
        ("gate-1.local", "gate-1.local"),
    ],
)
def test_a_host_is_a_name_or_an_address(text: str, host: str) -> None:
    assert settings(HOST=text).server.host == host


@pytest.mark.parametrize(
    "text", ["http://localhost", "localhost:8080", "a b", "foo..bar", "x" * 64, "[::1", "ä.example"], ids=ascii
)
def test_what_is_no_host_is_told(text: str) -> None:
    assert "give a host name or an IP address" in fault(HOST=text)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://localhost:11434/", "http://localhost:11434"),
        ("http://[::1]:11434", "http://[::1]:11434"),
        ("https://engines.example/ollama/", "https://engines.example/ollama"),
    ],
    ids=["a final slash", "IPv6", "a prefix"],
)
def test_the_engine_is_any_http_url(text: str, url: str) -> None:
    assert settings(ENGINE_URL=text).engine.url == url


@pytest.mark.parametrize(
    "text",
    [
        "localhost:11434",
        "ftp://localhost",
        "http://",
        "http://localhost:99999",
        "http://localhost:0",
        "http://[::1",
        "http://::1:11434",
        "http://999.1.1.1",
        "http://local host",
        "http://localhost?x=1",
        "http://localhost#x",
        "http://ümlaut.example",
        "//localhost",
    ],
    ids=ascii,
)
def test_what_is_no_url_is_told(text: str) -> None:
    assert "ENGINE_URL" in fault(ENGINE_URL=text)
    assert "give http://host[:port][/path]" in fault(ENGINE_URL=text)


@pytest.mark.parametrize("text", ["http://localhost:8000/v1", "http://localhost:8000/openai/v1/"])
def test_the_engine_is_its_root_because_v1_is_in_the_paths(text: str) -> None:
    assert fault(ENGINE_URL=text) == "ENGINE_URL ends in /v1: leave that out: it is in the paths that clients ask for"


def test_networks_are_addresses_or_ranges() -> None:
    trusted = settings(TRUSTED_PROXIES="10.0.0.5, 10.1.2.3/8,, ::1").trusted_proxies
    assert trusted == (ip_network("10.0.0.5"), ip_network("10.0.0.0/8"), ip_network("::1"))
    assert fault(TRUSTED_PROXIES="10.0.0.5,*").startswith("TRUSTED_PROXIES has '*': list IP addresses or networks")


def test_origins_are_taken_as_browsers_write_them() -> None:
    given = settings(CORS_ORIGINS="https://App.Example:443, http://localhost:80,http://[::1]:3000").cors_origins
    assert given == ("https://app.example", "http://localhost", "http://[::1]:3000")
    assert settings(CORS_ORIGINS="*").cors_origins == ("*",)


@pytest.mark.parametrize(
    "text", ["app.example", "https://app.example/", "https://app.example/path", "*,http://a", "null"]
)
def test_what_is_no_origin_is_told(text: str) -> None:
    assert "list origins as http(s)://host[:port]" in fault(CORS_ORIGINS=text)


def test_a_home_is_found_for_a_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/srv/gateway")
    assert settings(ATTACH_DATA_DIR="~/state").data_dir == Path("/srv/gateway/state")
    assert "there is no such home" in fault(ATTACH_DATA_DIR="~nobody-at-all/state")


@pytest.mark.parametrize("key", ["ein Schlüssel", "two words", "a\nb", "k\x00"], ids=ascii)
def test_a_key_that_no_header_can_carry_is_told_and_not_shown(key: str) -> None:
    told = fault(ENGINE_API_KEY=key)
    assert "give visible ASCII" in told
    assert key not in told


# Who may call


def test_the_first_audience_is_told_to_browsers() -> None:
    given = settings(OIDC_AUD="one, two")
    assert given.oidc is not None
    assert (given.audience, given.oidc.audiences) == ("one", ("one", "two"))


@pytest.mark.parametrize("url", ["https://gate.example", "https://gate.example/"])
def test_a_public_url_is_an_audience_with_and_without_its_slash(url: str) -> None:
    given = Settings.from_environ({"OIDC_ISSUER": "https://issuer.example", "PUBLIC_URL": url})
    assert given.oidc is not None
    assert given.oidc.audiences == ("https://gate.example", "https://gate.example/")
    assert given.audience == given.public_url == "https://gate.example"


@pytest.mark.parametrize(
    "issuer", ["http://localhost:4444", "http://127.0.0.1:4444/", "http://[::1]:4444", "https://issuer.example"]
)
def test_issuers_are_https_or_on_this_machine(issuer: str) -> None:
    given = settings(OIDC_ISSUER=issuer)
    assert given.oidc is not None
    assert given.oidc.issuer == issuer


def test_a_plain_http_issuer_elsewhere_takes_a_switch() -> None:
    assert "OIDC_ALLOW_HTTP=on" in fault(OIDC_ISSUER="http://issuer.example")
    assert "OIDC_ALLOW_HTTP=on" in fault(OIDC_JWKS_URL="http://issuer.example/keys")
    given = settings(OIDC_ISSUER="http://issuer.example", OIDC_ALLOW_HTTP="on")
    assert given.oidc is not None
    assert given.oidc.allow_http


@pytest.mark.parametrize("algorithms", ["HS256", "none", "RS256,RS1"])
def test_algorithms_are_those_that_are_known(algorithms: str) -> None:
    assert "choose from RS256" in fault(OIDC_ALGORITHMS=algorithms)


def test_dev_mode_asks_for_no_issuer_and_takes_none() -> None:
    assert Settings.for_dev({}).oidc is None
    assert Settings.for_dev(ENOUGH).oidc is None


# Faults and secrets


def test_all_faults_are_told_at_once() -> None:
    wrong = {
        "OIDC_ALGORITHMS": "HS256",
        "OIDC_JWKS_URL": "http://issuer.example/keys",
        "ENGINE_URL": "nonsense",
        "ENGINE_CONNECT_TIMEOUT": "-1",
        "PORT": "http",
        "PUBLIC_URL": "gate.example",
        "CORS_ORIGINS": "gate.example",
        "TRUSTED_PROXIES": "gate.example",
        "MAX_REQUEST_BYTES": "much",
        "API_DOCS": "maybe",
        "LOG_LEVEL": "loud",
        "LOG_FORMAT": "xml",
        "DRAIN_DELAY": "nan",
    }
    told = faults(wrong)
    assert set(told) == {*wrong, "OIDC_ISSUER", "OIDC_AUD"}
    for name, sentence in told.items():
        assert sentence.startswith(f"{name} ")
        assert ": " in sentence, "there is no mend"
    with pytest.raises(ConfigurationError) as all_of_it:
        Settings.from_environ(wrong)
    assert len(str(all_of_it.value).splitlines()) == len(told)


SECRET = "s3cr3t-value"


def test_secrets_are_not_in_the_repr_of_settings() -> None:
    given = settings(ENGINE_API_KEY=SECRET)
    assert given.engine.api_key == SECRET
    assert SECRET not in repr(given)


@pytest.mark.parametrize("variable", [variable for variable in VARIABLES if variable.secret], ids=lambda row: row.name)
def test_secrets_are_not_shown(variable: Variable) -> None:
    shown = effective({variable.name: SECRET})
    assert f"* {variable.name}=(hidden)" in shown.splitlines()
    assert SECRET not in shown


@pytest.mark.parametrize(
    "text", [f"http://user:{SECRET}@engine.example", f"user:{SECRET}@engine.example", f"http://user:{SECRET}@[::1"]
)
@pytest.mark.parametrize("name", ["ENGINE_URL", "PUBLIC_URL", "OIDC_ISSUER", "OIDC_JWKS_URL", "CORS_ORIGINS"])
def test_a_password_in_a_url_is_refused_and_not_shown(name: str, text: str) -> None:
    assert SECRET not in fault(**{name: text})
    assert SECRET not in effective({name: text})


def test_what_is_in_force_shows_what_the_operator_set() -> None:
    lines = effective({"PORT": "9090", "HOST": " "}).splitlines()
    assert len(lines) == len(VARIABLES)
    assert "* PORT=9090" in lines
    assert "  HOST=127.0.0.1" in lines
    assert "  OIDC_ISSUER=(unset)" in lines


def test_a_variable_that_is_not_in_the_table_cannot_be_read() -> None:
    with pytest.raises(KeyError):
        Environment({"SOMETHING_ELSE": "x"}).text("SOMETHING_ELSE")


def test_every_variable_of_the_table_is_read() -> None:
    class Reading(dict[str, str]):
        names: set[str] = set()  # noqa: RUF012 - one for this one class

        def get(self, name: str, default: str = "") -> str:  # type: ignore[override]
            self.names.add(name)
            return super().get(name, default)

    own = {"EXCHANGE_CLIENT_ID": "x", "EXCHANGE_CLIENT_SECRET": "x"}
    descope = {"DESCOPE_PROJECT_ID": "x", "DESCOPE_CLIENT_ID": "x", "DESCOPE_CLIENT_SECRET": "x"}
    Settings.from_environ(Reading(ENOUGH))
    for exchange in ({"EXCHANGE_URL": "https://x.example", **own}, {"ENABLE_DESCOPE_EXCHANGE": "on", **descope}):
        Settings.from_environ(Reading({**ENOUGH, "EXCHANGE_ISSUERS": "https://theirs.example", **exchange}))
    assert Reading.names == {variable.name for variable in VARIABLES}


# .env


def env_file(directory: Path, text: str) -> Path:
    path = directory / "settings"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("ENGINE_API_KEY=a$b${HOME}c", "a$b${HOME}c"),
        ('ENGINE_API_KEY="a#b c"', "a#b c"),
        ("ENGINE_API_KEY='a\"b'", 'a"b'),
        ("ENGINE_API_KEY=abc # not this", "abc"),
        ("ENGINE_API_KEY=a#b", "a#b"),
        ("export ENGINE_API_KEY=abc", "abc"),
        ("ENGINE_API_KEY = abc", "abc"),
        ("ENGINE_API_KEY=", ""),
        ("ENGINE_API_KEY=first\nENGINE_API_KEY=last", "last"),
        ("\ufeffENGINE_API_KEY=abc", "abc"),
        ("# a comment\r\n\r\nENGINE_API_KEY=abc\r\n", "abc"),
    ],
    ids=["$", "quotes", "single quotes", "comment", "#", "export", "spaces", "empty", "twice", "BOM", "CRLF"],
)
def test_a_file_is_read_like_a_shell_would_but_for_the_dollar(tmp_path: Path, line: str, value: str) -> None:
    assert read_environ({}, env_file=env_file(tmp_path, line)) == {"ENGINE_API_KEY": value}


def test_the_environment_beats_the_file_even_with_nothing(tmp_path: Path) -> None:
    file = env_file(tmp_path, "PORT=1\nHOST=::1\nENGINE_API_KEY=from-the-file\n")
    read = read_environ({"PORT": "2", "ENGINE_API_KEY": ""}, env_file=file)
    assert read == {"PORT": "2", "HOST": "::1", "ENGINE_API_KEY": ""}
    assert settings(**read).engine.api_key is None


def test_only_the_gateways_own_variables_are_taken_from_a_file(tmp_path: Path) -> None:
    file = env_file(tmp_path, "PORT=1\nHTTPS_PROXY=http://proxy.example\n")
    assert read_environ({}, env_file=file) == {"PORT": "1"}


def test_only_the_working_directory_has_a_file_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("PORT=1\n")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert read_environ({}) == {}
    monkeypatch.chdir(tmp_path)
    assert read_environ({}) == {"PORT": "1"}


def test_a_file_that_was_asked_for_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(f"{tmp_path}/none cannot be read: no such file")):
        EnvFile.read(tmp_path / "none")
    with pytest.raises(ConfigurationError, match="cannot be read: is a directory"):
        EnvFile.read(tmp_path)
    (tmp_path / "latin-1").write_bytes(b"OIDC_AUD=\xe4\n")
    with pytest.raises(ConfigurationError, match="save it as UTF-8"):
        EnvFile.read(tmp_path / "latin-1")


def test_lines_that_set_nothing_are_told_by_number_and_not_by_what_they_hold(tmp_path: Path) -> None:
    file = env_file(tmp_path, f'PORT=1\n\n\nENGINE_API_KEY {SECRET}\nHOST\nOIDC_AUD="open {SECRET}\n')
    with pytest.raises(ConfigurationError) as told:
        EnvFile.read(file)
    assert [fault.name for fault in told.value.faults] == [f"{file} line {number}" for number in (4, 5, 6)]
    assert SECRET not in str(told.value)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ENGINE_ULR", "ENGINE_URL"),
        ("OIDC_AUDIENCE", "OIDC_AUD"),
        ("OIDC_ISSUER_URL", "OIDC_ISSUER"),
        ("oidc_issuer", "OIDC_ISSUER"),
        ("LOGLEVEL", "LOG_LEVEL"),
        ("AUTH0_CLIENT_ID", "AUTH0_CLIENT"),
        ("DATABASE_PASSWORD", None),
        ("HTTPS_PROXY", None),
        ("PATH", None),
    ],
)
def test_a_mistyped_name_is_known_by_its_likeness(tmp_path: Path, name: str, meant: str | None) -> None:
    file = EnvFile.read(env_file(tmp_path, f"PORT=1\n{name}=x\n"))
    assert file.near_misses() == ({name: meant} if meant else {})


def test_an_engines_own_ca_file_is_read_at_the_start(tmp_path: Path) -> None:
    nothing_in_it = tmp_path / "ca.pem"
    nothing_in_it.write_text("no certificate")
    for path in (nothing_in_it, tmp_path / "missing.pem"):
        assert "holds no CA certificates" in fault(ENGINE_CA_FILE=str(path))

"""Whoever is turned away can find out where to sign in: RFC 9728, from the challenge to the issuer."""

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from starlette.types import Scope

from attach.resource import WELL_KNOWN, ProtectedResource
from middleware import ScopeRules
from tests.gateways import Answer, Stand, standing
from tests.issuer import Issuer

in_one_loop = pytest.mark.asyncio(loop_scope="module")

URL = "https://gate.example"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stand() -> AsyncIterator[Stand]:
    async with standing(PUBLIC_URL=URL) as stand:
        yield stand


def metadata_url(answer: Answer) -> str:
    """The place that a challenge names, as the clients of the Model Context Protocol find it."""
    found = re.findall(r'resource_metadata="([^"]+)"', answer.one("www-authenticate").decode())
    assert len(found) == 1
    url: str = found[0]
    return url


def scope(path: str, port: int = 8080) -> Scope:
    return {"path": path, "server": ("127.0.0.1", port)}


@in_one_loop
@pytest.mark.parametrize(
    ("target", "resource"),
    [
        ("/", URL),
        ("/mcp", f"{URL}/mcp"),
        ("/mcp/", f"{URL}/mcp/"),
        ("/v1/chat/completions", f"{URL}/v1/chat/completions"),
        ("/mem/events?limit=1", f"{URL}/mem/events"),
        ("/tools/two%20words", f"{URL}/tools/two%20words"),
        ("/caf%C3%A9", f"{URL}/caf%C3%A9"),
        ("/%22quoted%22", f"{URL}/%22quoted%22"),
        ("/what%3fis", f"{URL}/what%3Fis"),
        ("/.well-known/oauth-protected-resourceful", f"{URL}/.well-known/oauth-protected-resourceful"),
    ],
)
async def test_the_challenge_leads_to_metadata_that_name_what_was_asked_for(
    stand: Stand, target: str, resource: str
) -> None:
    refused = await stand.ask("POST", target, token=None)
    assert refused.status == 401
    url = metadata_url(refused)
    assert url.startswith(URL + WELL_KNOWN)
    answer = await stand.ask("GET", url.removeprefix(URL), token=None)
    assert (answer.status, answer.one("content-type")) == (200, b"application/json")
    assert answer.json() == {
        "resource": resource,
        "authorization_servers": [stand.issuer.url],
        "bearer_methods_supported": ["header"],
        "resource_name": "Attach Gateway",
    }


@in_one_loop
@pytest.mark.parametrize("token", ["junk", "a.b.c"])
async def test_a_token_that_is_refused_is_told_the_way_too(stand: Stand, token: str) -> None:
    refused = await stand.ask("GET", "/mcp", token=token)
    assert b'error="invalid_token"' in refused.one("www-authenticate")
    assert metadata_url(refused) == f"{URL}{WELL_KNOWN}/mcp"


@in_one_loop
async def test_metadata_have_a_head(stand: Stand) -> None:
    for path in (WELL_KNOWN, f"{WELL_KNOWN}/mcp"):
        answer = await stand.ask("HEAD", path, token=None)
        assert (answer.status, answer.body) == (200, b"")


@in_one_loop
@pytest.mark.parametrize("origin", ["https://chat.example", "null", "http://localhost:9000"])
async def test_pages_of_every_origin_may_read_the_metadata(stand: Stand, origin: str) -> None:
    for path in (WELL_KNOWN, f"{WELL_KNOWN}/mcp"):
        answer = await stand.ask("GET", path, f"Origin: {origin}", token=None)
        assert (answer.status, answer.all("access-control-allow-origin")) == (200, [b"*"])
        fields = ("Access-Control-Request-Method: GET", "Access-Control-Request-Headers: mcp-protocol-version")
        preflight = await stand.ask("OPTIONS", path, f"Origin: {origin}", *fields, token=None)
        assert (preflight.status, preflight.one("access-control-allow-origin")) == (200, b"*")


@in_one_loop
@pytest.mark.parametrize("path", ["/auth/config", "/healthz", "/v1/models", "/.well-known/other", f"{WELL_KNOWN}x"])
async def test_nothing_else_is_open_to_every_origin(stand: Stand, path: str) -> None:
    answer = await stand.ask("GET", path, "Origin: https://chat.example")
    assert not answer.all("access-control-allow-origin")


@in_one_loop
@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        pytest.param("POST", WELL_KNOWN, 401, id="another method"),
        pytest.param("DELETE", f"{WELL_KNOWN}/mcp", 401, id="another method below"),
        pytest.param("GET", f"{WELL_KNOWN}x/mcp", 401, id="beside it"),
        pytest.param("GET", f"{WELL_KNOWN};x/mcp", 401, id="path parameter"),
        pytest.param("GET", f"{WELL_KNOWN}\\mcp", 401, id="backslash"),
        pytest.param("GET", "/.well-known/OAuth-Protected-Resource/mcp", 401, id="another case"),
        pytest.param("GET", "/.well-known/", 401, id="above it"),
        pytest.param("GET", f"/x{WELL_KNOWN}/mcp", 401, id="at the end"),
        pytest.param("GET", f"{WELL_KNOWN}/../../api/tags", 400, id="dot segments"),
        pytest.param("GET", f"{WELL_KNOWN}/%2e%2e/%2e%2e/api/tags", 400, id="encoded dot segments"),
        pytest.param("GET", f"{WELL_KNOWN}/..;/api/tags", 400, id="dot segments with a parameter"),
    ],
)
async def test_only_the_metadata_are_public(stand: Stand, method: str, target: str, status: int) -> None:
    answer = await stand.ask(method, target, token=None)
    assert (answer.status, answer.seen) == (status, None)


@in_one_loop
async def test_the_metadata_never_come_from_the_engine(stand: Stand) -> None:
    for method, path in (("POST", f"{WELL_KNOWN}/mcp"), ("GET", f"{WELL_KNOWN};x/mcp"), ("GET", f"{WELL_KNOWN}x")):
        answer = await stand.ask(method, path)
        assert answer.seen is None
        assert answer.status in (404, 405)


@in_one_loop
@pytest.mark.parametrize(
    ("aud", "status"),
    [
        (URL, 200),
        (f"{URL}/", 200),
        (f"{URL}/mcp", 200),
        ([f"{URL}/mcp", "https://elsewhere.example"], 200),
        (f"{URL}.attacker.example/mcp", 401),
        (f"{URL}:444/mcp", 401),
        ("http://gate.example/mcp", 401),
    ],
    ids=str,
)
async def test_a_token_for_a_resource_of_ours_is_meant_for_us(stand: Stand, aud: str | list[str], status: int) -> None:
    assert (await stand.ask("GET", "/mcp", token=stand.issuer.token(aud=aud))).status == status


async def test_without_a_public_url_it_is_this_machine_whatever_host_was_asked_for() -> None:
    async with standing() as stand:
        refused = await stand.say(b"GET /mcp HTTP/1.1\r\nHost: attacker.example\r\n\r\n")
        base = f"http://localhost:{stand.gateway.port}"
        assert metadata_url(refused) == f"{base}{WELL_KNOWN}/mcp"
        answer = await stand.ask("GET", f"{WELL_KNOWN}/mcp", token=None)
    assert answer.json()["resource"] == f"{base}/mcp"


async def test_the_issuer_is_named_as_it_names_itself() -> None:
    async with Issuer.start() as issuer:
        issuer.issuer = issuer.url + "/"
        async with standing(issuer=issuer, PUBLIC_URL=URL) as stand:
            assert (await stand.ask("GET", "/mcp")).status == 200
            answer = await stand.ask("GET", WELL_KNOWN, token=None)
    assert answer.json()["authorization_servers"] == [issuer.url + "/"]


def test_the_name_goes_between_the_host_and_the_path_of_a_public_url() -> None:
    resource = ProtectedResource(public_url="https://big.example:8443/llm/", issuers=list, scopes=ScopeRules())
    base = f"https://big.example:8443{WELL_KNOWN}/llm"
    assert resource.metadata_url(scope("/mcp")) == f"{base}/mcp"
    assert resource.metadata_url(scope("/")) == base + "/"
    for path, named in (
        (f"{WELL_KNOWN}/llm/mcp", "/llm/mcp"),
        (f"{WELL_KNOWN}/llm", "/llm"),
        (f"{WELL_KNOWN}/llm/", "/llm/"),
        (WELL_KNOWN, "/llm"),
    ):
        document = resource.document(scope(path))
        assert document is not None
        assert document["resource"] == f"https://big.example:8443{named}"
    for path in (f"{WELL_KNOWN}/other", f"{WELL_KNOWN}/llmx/mcp"):
        assert resource.document(scope(path)) is None


def test_a_member_without_a_value_is_left_out() -> None:
    document = ProtectedResource(public_url=URL, issuers=list, scopes=ScopeRules()).document(scope(WELL_KNOWN))
    assert document is not None
    assert {"authorization_servers", "scopes_supported"}.isdisjoint(document)


def test_scopes_are_told_in_one_order() -> None:
    resource = ProtectedResource(public_url=URL, issuers=list, scopes=ScopeRules(["b"], {"/x": ["a", "b"]}))
    assert (resource.document(scope(WELL_KNOWN)) or {})["scopes_supported"] == ["a", "b"]


def test_a_path_of_any_length_gives_a_challenge_of_bearable_length() -> None:
    resource = ProtectedResource(public_url=URL, issuers=list, scopes=ScopeRules())
    assert resource.metadata_url(scope("/" + "ü" * 30_000)) == URL + WELL_KNOWN

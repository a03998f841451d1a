"""Whose path is it: what is public, what is the gateway's own, and what goes to the engine."""

from collections.abc import AsyncIterator, Callable, Mapping
from urllib.parse import quote

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import Scope

from auth import MissingCredentials
from middleware import MalformedPath, canonical_path
from proxy import EngineProxy, EngineSettings, EngineTransport
from tests.gateways import Stand, standing
from tests.servers import Connection, Engine, Received

in_one_loop = pytest.mark.asyncio(loop_scope="module")

RESERVED = [
    "/.well-known",
    "/a2a",
    "/auth",
    "/demo",
    "/docs",
    "/healthz",
    "/mem",
    "/metrics",
    "/openapi.json",
    "/readyz",
    "/redoc",
    "/tasks",
    "/usage",
    "/v1/logs",
]
SPELLINGS: Mapping[str, Callable[[str], str]] = {
    "plain": lambda path: path,
    "first letter encoded": lambda path: f"/%{ord(path[1]):02x}{path[2:]}",
    "every byte encoded": lambda path: "".join(f"%{ord(char):02X}" for char in path).replace("%2F", "/", 1),
    "slashes doubled": lambda path: path.replace("/", "//"),
    "an encoded slash doubled": lambda path: path.replace("/", "/%2f"),
    "trailing slash": lambda path: path + "/",
    "trailing encoded slash": lambda path: path + "%2F",
    "below it": lambda path: path + "/anything",
    "below it by an encoded slash": lambda path: path + "%2fanything",
    "upper case": str.upper,
    "path parameter": lambda path: path + ";v=1",
    "encoded path parameter": lambda path: path + "%3Bv=1",
    "path parameter on each segment": lambda path: path.replace("/", ";v=1/").removeprefix(";v=1") + ";",
    "query": lambda path: path + "?a=b",
    "absolute form": lambda path: "http://engine.test" + path,
}
DOT_SEGMENTS = {
    "two dots": "/v1/../api/tags",
    "one dot": "/v1/./models",
    "at the end": "/v1/..",
    "one at the end": "/v1/.",
    "alone": "/..",
    "encoded": "/v1/%2e%2e/api/tags",
    "half encoded": "/v1/.%2E/api/tags",
    "encoded slashes": "/v1%2f..%2fapi/tags",
    "path parameter": "/v1/..;/api/tags",
    "path parameter with a value": "/v1/..;a=b/api/tags",
    "encoded path parameter": "/v1/..%3b/api/tags",
    "after doubled slashes": "/v1//../api/tags",
    "backslash": "/v1/..\\api/tags",
    "encoded backslashes": "/v1%5c..%5capi/tags",
    "out of a public path": "/healthz/../api/tags",
    "out of a public path, encoded": "/healthz%2f..%2fapi",
    "into a public path": "/api/../healthz",
    "absolute form": "http://gateway.test/v1/../api/tags",
}
CONTROLS = {"NUL": "/v1/%00models", "CR": "/v1/models%0d", "LF": "/v1%0A/models", "at the end": "/healthz%0a"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stand() -> AsyncIterator[Stand]:
    async with standing() as stand:
        yield stand


@pytest.mark.parametrize(
    ("raw", "canonical"),
    [
        (b"/", "/"),
        (b"/v1/models", "/v1/models"),
        (b"/v1/models/", "/v1/models/"),
        (b"/%76%31/models", "/v1/models"),
        (b"//v1///models//", "/v1/models/"),
        (b"/v1%2F%2fmodels", "/v1/models"),
        (b"/a%252fb", "/a%2fb"),
        (b"/caf%C3%A9", "/café"),
        (b"/%ff", "/\N{REPLACEMENT CHARACTER}"),
        (b"/100%", "/100%"),
        (b"/a+b%20c", "/a+b c"),
        (b"/...", "/..."),
        (b"/.hidden/..x/x../v1.2", "/.hidden/..x/x../v1.2"),
    ],
)
def test_a_path_has_one_canonical_form(raw: bytes, canonical: str) -> None:
    assert canonical_path(raw) == canonical


@pytest.mark.parametrize("raw", [b"", b"*", b"v1/models", b"http://x/"])
def test_what_does_not_begin_with_a_slash_is_no_path(raw: bytes) -> None:
    with pytest.raises(MalformedPath):
        canonical_path(raw)


@settings(deadline=None)
@given(st.binary(max_size=40).map(lambda tail: b"/" + tail) | st.text("./%25eE2fF;\\ac", max_size=30).map(str.encode))
def test_a_canonical_path_can_be_read_in_one_way_only(raw: bytes) -> None:
    try:
        path = canonical_path(raw)
    except MalformedPath:
        return
    assert path.startswith("/")
    assert "//" not in path
    assert not {"\0", "\r", "\n"} & set(path)
    segments = path.replace("\\", "/").split("/")
    assert not {".", ".."} & {segment.partition(";")[0] for segment in segments}


@settings(deadline=None)
@given(st.lists(st.text("abz09-._~!$&'()*+,;=:@é%", min_size=1), min_size=1), st.integers(0, 2**64 - 1))
def test_encoding_more_of_a_path_changes_nothing(segments: list[str], encoded: int) -> None:
    plain = "/" + "/".join(segments)
    spelled = "/" + "".join(
        f"%{byte:02x}" if byte in b"%" or byte > 127 or encoded >> (place % 64) & 1 else chr(byte)
        for place, byte in enumerate(plain[1:].encode())
    )
    usual = quote(plain)
    try:
        expected = canonical_path(usual.encode())
    except MalformedPath:
        with pytest.raises(MalformedPath):
            canonical_path(spelled.encode())
    else:
        assert canonical_path(spelled.encode()) == expected == plain


@in_one_loop
@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("path", RESERVED)
async def test_a_reserved_path_never_reaches_the_engine(stand: Stand, path: str, spelling: str) -> None:
    read = await stand.ask("GET", SPELLINGS[spelling](path))
    written = await stand.ask("POST", SPELLINGS[spelling](path), body=b"{}")
    assert (read.seen, written.seen) == (None, None)
    assert read.status in {200, 404, 405}
    assert written.status in {404, 405, 503}  # 503: what memory is off for.


@in_one_loop
@pytest.mark.parametrize(
    "target",
    ["/healthzz", "/metricsx", "/authority", "/v1/logs-of-mine", "/v1/log", "/v1", "/docs.html", "/x/healthz", "/;v=1"],
)
async def test_a_path_that_only_looks_reserved_is_the_engines(stand: Stand, target: str) -> None:
    answer = await stand.ask("GET", target)
    assert answer.status == 200
    assert answer.seen is not None
    assert answer.seen.target == target.encode()


@in_one_loop
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/auth/config", "/docs", "/redoc", "/openapi.json"])
async def test_a_public_path_needs_no_token(stand: Stand, method: str, path: str) -> None:
    answer = await stand.ask(method, path, token=None)
    assert answer.status == 200
    assert bool(answer.body) is (method == "GET")


@in_one_loop
@pytest.mark.parametrize(
    ("method", "target"),
    [
        pytest.param("POST", "/healthz", id="another method"),
        pytest.param("OPTIONS", "/healthz", id="OPTIONS"),
        pytest.param("POST", "/docs", id="another method on the docs"),
        pytest.param("GET", "/healthz/", id="trailing slash"),
        pytest.param("GET", "/HEALTHZ", id="upper case"),
        pytest.param("GET", "/docs%2f", id="trailing encoded slash"),
        pytest.param("GET", "/docs/x", id="below"),
        pytest.param("GET", "/healthz;x", id="path parameter"),
        pytest.param("GET", "/healthz%3fx", id="encoded question mark"),
        pytest.param("GET", "/healthz%23", id="encoded hash"),
        pytest.param("GET", "/api/tags?/healthz", id="in the query"),
        pytest.param("GET", "/api/tags#/healthz", id="in the fragment"),
        pytest.param("GET", "http://healthz/api/tags", id="as the host"),
        pytest.param("GET", "/healthz%252f..%252fapi", id="encoded twice"),
        pytest.param("GET", "/api/healthz", id="at the end"),
        pytest.param("GET", "/", id="the root"),
    ],
)
async def test_only_exact_pairs_of_method_and_path_are_public(stand: Stand, method: str, target: str) -> None:
    answer = await stand.ask(method, target, token=None)
    assert answer.status == 401
    assert answer.seen is None


@in_one_loop
@pytest.mark.parametrize("target", ["/%68ealthz", "//healthz", "http://elsewhere.test/healthz", "/healthz?x=/api"])
async def test_another_spelling_of_a_public_path_is_that_path(stand: Stand, target: str) -> None:
    answer = await stand.ask("GET", target, token=None)
    assert (answer.status, answer.json()) == (200, {"status": "ok"})


@in_one_loop
@pytest.mark.parametrize("token", [None, ""], ids=["without a token", "with a token"])
@pytest.mark.parametrize("target", [*DOT_SEGMENTS.values(), *CONTROLS.values()], ids=[*DOT_SEGMENTS, *CONTROLS])
async def test_a_path_that_servers_read_in_two_ways_is_refused(stand: Stand, target: str, token: str | None) -> None:
    answer = await stand.ask("GET", target, token=token)
    assert (answer.status, answer.code) == (400, "malformed_path")
    assert answer.seen is None


@in_one_loop
@pytest.mark.parametrize("target", ["/x y", "/x\ty", "/x\x7f", "/caf\xe9", "x", "*", "gateway.test:80"])
async def test_a_target_that_is_no_target_is_refused(stand: Stand, target: str) -> None:
    answer = await stand.ask("GET", target)
    assert answer.status == 400
    assert answer.seen is None


@in_one_loop
@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/auth/config", "/docs", "/openapi.json"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_a_wrong_method_on_an_own_path_is_told_the_right_ones(stand: Stand, method: str, path: str) -> None:
    answer = await stand.ask(method, path)
    assert (answer.status, answer.code) == (405, "method_not_allowed")
    assert sorted(answer.one("allow").split(b", ")) == [b"GET", b"HEAD"]


@in_one_loop
@pytest.mark.parametrize(
    "target", ["/healthz/", "/docs/", "/readyz/now", "/mem/x", "/metrics/x", "/.well-known/x", "/HealthZ"]
)
async def test_a_reserved_path_with_nothing_there_is_404_and_no_redirect(stand: Stand, target: str) -> None:
    answer = await stand.ask("GET", target)
    assert (answer.status, answer.code) == (404, "not_found")
    assert not answer.all("location")


async def test_the_docs_can_be_hidden() -> None:
    async with standing(API_DOCS="off") as stand:
        for path in ("/docs", "/redoc", "/openapi.json", "/docs/oauth2-redirect"):
            assert (await stand.ask("GET", path, token=None)).status == 401
            hidden = await stand.ask("GET", path)
            assert (hidden.status, hidden.seen) == (404, None)


@in_one_loop
@pytest.mark.parametrize("token", [None, ""], ids=["without a token", "with a token"])
@pytest.mark.parametrize("target", ["/api/chat", "/v1/realtime", "/healthz"])
async def test_a_websocket_is_refused_with_the_reason(stand: Stand, target: str, token: str | None) -> None:
    opening = ["Connection: Upgrade", "Upgrade: WebSocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: eA=="]
    answer = await stand.ask("GET", target, *opening, token=token)
    assert (answer.status, answer.code) == (403, "websocket_refused")
    assert "WebSocket" in answer.json()["detail"]
    assert answer.seen is None


@in_one_loop
async def test_what_follows_a_refused_websocket_is_not_taken_for_a_request(stand: Stand) -> None:
    opening = stand.request("GET", "/x", "Connection: Upgrade", "Upgrade: websocket")
    async with stand.line() as line:
        await line.ask(opening + stand.request("GET", "/smuggled"))
        assert (await line.answer()).status == 403
        assert await line.closed() == b""
    assert b"/smuggled" not in [received.target for received in stand.engine.received]


@in_one_loop
async def test_a_preflight_is_answered_here_without_a_token(stand: Stand) -> None:
    answer = await stand.ask(
        "OPTIONS",
        "/api/chat",
        "Origin: http://localhost:9000",
        "Access-Control-Request-Method: POST",
        "Access-Control-Request-Headers: authorization, content-type",
        token=None,
    )
    assert answer.status == 200
    assert answer.one("access-control-allow-origin") == b"http://localhost:9000"
    assert b"POST" in answer.one("access-control-allow-methods")
    assert answer.one("access-control-allow-headers") == b"authorization, content-type"
    assert answer.seen is None


@in_one_loop
@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.test",
        "null",
        "http://localhost:9000.evil.test",
        "http://localhost:90000",
        "https://localhost:9000",
        "http://localhost:9000/",
        "HTTP://LOCALHOST:9000",
        "http://localhost",
    ],
)
async def test_a_foreign_origin_may_read_nothing(stand: Stand, origin: str) -> None:
    preflight = await stand.ask(
        "OPTIONS", "/api/chat", f"Origin: {origin}", "Access-Control-Request-Method: POST", token=None
    )
    assert preflight.status == 400
    assert preflight.seen is None
    for answer in (preflight, await stand.ask("GET", "/api/tags", f"Origin: {origin}")):
        assert not answer.all("access-control-allow-origin")
        assert not answer.all("access-control-allow-credentials")


@in_one_loop
@pytest.mark.parametrize(
    ("target", "token", "status"),
    [("/x", "", 200), ("/x", None, 401), ("/x/..", "", 400), ("/mem/x", "", 404), ("/healthz", None, 200)],
)
async def test_a_page_that_may_call_can_read_every_answer(
    stand: Stand, target: str, token: str | None, status: int
) -> None:
    answer = await stand.ask("GET", target, "Origin: http://127.0.0.1:9000", token=token)
    assert answer.status == status
    assert answer.all("access-control-allow-origin") == [b"http://127.0.0.1:9000"]
    exposed = answer.one("access-control-expose-headers").lower()
    for name in (b"x-attach-user", b"x-attach-session", b"x-request-id", b"www-authenticate", b"retry-after"):
        assert name in exposed


@in_one_loop
@pytest.mark.parametrize("fields", [[], ["Origin: http://localhost:9000"]], ids=["from no page", "from a page"])
async def test_caches_are_told_that_an_answer_depends_on_the_origin(stand: Stand, fields: list[str]) -> None:
    async def vary(received: Received, connection: Connection) -> None:
        await connection.answer(b"{}", vary="Accept-Encoding")

    with stand.engine_answers(vary):
        answer = await stand.ask("GET", "/x", *fields)
    named = {name.strip() for value in answer.all("vary") for name in value.split(b",")}
    assert named == {b"Accept-Encoding", b"Origin"}


@in_one_loop
@pytest.mark.parametrize(
    "fields",
    [
        pytest.param([], id="alone"),
        pytest.param(["Origin: http://localhost:9000"], id="with an origin only"),
        pytest.param(["Access-Control-Request-Method: POST"], id="with a requested method only"),
    ],
)
async def test_other_options_requests_are_the_engines_and_need_a_token(stand: Stand, fields: list[str]) -> None:
    refused = await stand.ask("OPTIONS", "/api/chat", *fields, token=None)
    assert (refused.status, refused.seen) == (401, None)
    answer = await stand.ask("OPTIONS", "/api/chat", *fields)
    assert answer.status == 200
    assert answer.seen is not None
    assert answer.seen.method == b"OPTIONS"


@in_one_loop
@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "PROPFIND", "QUERY"])
async def test_any_method_goes_to_the_engine(stand: Stand, method: str) -> None:
    answer = await stand.ask(method, "/api/blobs/sha256:1")
    assert answer.seen is not None
    assert answer.seen.method == method.encode()


async def test_the_way_to_the_engine_asks_for_an_identity_itself() -> None:
    async def unreached(*_: object) -> None:
        pytest.fail("something was said without an identity")

    async with Engine() as engine, EngineTransport() as transport:
        proxy = EngineProxy(transport, EngineSettings(url=engine.url))
        scope: Scope = {"type": "http", "method": "GET", "raw_path": b"/x", "query_string": b"", "headers": []}
        states: list[dict[str, None]] = [{}, {"identity": None}]
        for scope["state"] in states:
            with pytest.raises(MissingCredentials):
                await proxy(scope, unreached, unreached)  # type: ignore[arg-type]
        assert engine.connections == 0


@in_one_loop
async def test_a_trace_is_refused_because_it_would_show_the_engines_credential(stand: Stand) -> None:
    answer = await stand.ask("TRACE", "/api/chat")
    assert (answer.status, answer.code) == (501, "not_supported")
    assert answer.seen is None

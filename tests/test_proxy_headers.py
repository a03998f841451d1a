"""What of a request's head crosses to the engine, and what of its answer's comes back."""

import json
import re
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from proxy.headers import MOST_REMEMBERED, MOST_REMEMBERED_BYTES, RequestHeaders
from tests.gateways import Answer, Stand, standing
from tests.servers import Connection, Received

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stand() -> AsyncIterator[Stand]:
    async with standing() as stand:
        yield stand


def seen_by_engine(answer: Answer) -> Received:
    assert answer.status == 200
    assert answer.seen is not None
    return answer.seen


async def answered_with(stand: Stand, *lines: bytes, body: bytes = b"hi", method: str = "GET") -> Answer:
    """The answer to a client when the engine's has these header lines."""

    async def script(received: Received, connection: Connection) -> None:
        head = [b"HTTP/1.1 200 OK", *lines, b"Content-Length: %d" % len(body), b"", b""]
        await connection.send(b"\r\n".join(head), body if received.method != b"HEAD" else b"")

    with stand.engine_answers(script):
        answer = await stand.ask(method, "/x")
    assert answer.status == 200
    return answer


# From the client to the engine.


async def test_the_engine_sees_who_calls_and_no_credential_of_theirs(stand: Stand) -> None:
    answer = await stand.ask(
        "GET", "/x", f"x-api-key: {stand.token}", "Cookie: session=1", "Proxy-Authorization: Basic x"
    )
    seen = seen_by_engine(answer)
    assert seen.one("x-attach-user") == b"alice"
    assert re.fullmatch(b"[0-9a-f]{16}", seen.one("x-attach-session"))
    assert not any(stand.token.encode() in value for _, value in seen.headers)
    for name in ("authorization", "x-api-key", "cookie", "proxy-authorization"):
        assert not seen.all(name)


@pytest.mark.parametrize("carrier", ["Authorization: Bearer {}", "authorization: bearer {}", "X-API-Key: {}"])
async def test_whatever_carries_the_token_stays_here(stand: Stand, carrier: str) -> None:
    seen = seen_by_engine(await stand.ask("GET", "/x", carrier.format(stand.token), token=None))
    assert not any(stand.token.encode() in value for _, value in seen.headers)


@pytest.mark.parametrize(
    "name",
    [
        "X-Attach-User",
        "x-attach-user",
        "X-ATTACH_user",
        "x_attach_user",
        "X_Attach-User",
        "X.Attach.User",
        "x-attach~user",
        "X-Attach-Session",
        "X-Attach-Session-Id",
        "X-Attach-Anything",
        "X-Attach-",
        "X-Attach-Project",
        "X-Attach-Memory",
    ],
)
async def test_what_a_caller_says_about_itself_is_dropped(stand: Stand, name: str) -> None:
    value = "on" if name.endswith("Memory") else "root"
    seen = seen_by_engine(await stand.ask("GET", "/x", f"{name}: {value}"))
    stamped = [(key, value) for key, value in seen.headers if re.match(rb"x\W|x_", key) and b"attach" in key.lower()]
    assert stamped == [(b"x-attach-user", b"alice"), (b"x-attach-session", seen.one("x-attach-session"))]


@pytest.mark.parametrize(
    "connection",
    ["X-Attach-User", "x-attach-user, x-attach-session", "close, X-ATTACH-USER", "Host, Authorization, X-Request-Id"],
)
async def test_a_connection_field_cannot_have_the_stamp_undone(stand: Stand, connection: str) -> None:
    seen = seen_by_engine(await stand.ask("GET", "/x", f"Connection: {connection}"))
    assert seen.one("x-attach-user") == b"alice"
    assert seen.one("x-attach-session")
    assert seen.one("host") == stand.engine.url.removeprefix("http://").encode()
    assert seen.one("x-request-id")


@pytest.mark.parametrize(
    "field",
    [
        "Keep-Alive: timeout=5",
        "Proxy-Connection: keep-alive",
        "TE: trailers",
        "Trailer: X-Checksum",
        "Upgrade: h2c",
        "HTTP2-Settings: AAAA",
        "Proxy-Authenticate: Basic",
        "Expect: 100-continue",
        "Origin: http://localhost:9000",
        "Access-Control-Request-Method: POST",
        "Access-Control-Request-Headers: x",
        "Access-Control-Request-Private-Network: true",
        "Forwarded: for=1.2.3.4",
        "X-Real-IP: 1.2.3.4",
        "X-Forwarded-User: root",
        "X-Forwarded-Email: root@x",
        "X-Forwarded-Port: 1",
        "X_Forwarded_User: root",
        "x_real_ip: 1.2.3.4",
        "X_Api_Key: secret",
        "Content_Length: 5",
        "Transfer_Encoding: chunked",
        "Proxy_Authorization: Basic x",
    ],
)
async def test_a_field_of_this_hop_stays_here(stand: Stand, field: str) -> None:
    name = field.partition(":")[0]
    seen = seen_by_engine(await stand.ask("GET", "/x", field))
    assert not seen.all(name)


async def test_fields_that_connection_names_stay_here(stand: Stand) -> None:
    fields = ["Connection: x-one, close", "Connection:x-TWO", "X-One: 1", "x-two: 2", "X-Three: 3"]
    seen = seen_by_engine(await stand.ask("GET", "/x", *fields))
    assert (seen.all("x-one"), seen.all("x-two"), seen.all("x-three")) == ([], [], [b"3"])
    assert not seen.all("connection")


async def test_connection_cannot_take_the_length_of_a_body_away(stand: Stand) -> None:
    fields = ["Connection: content-length, content-type", "Content-Type: application/json"]
    seen = seen_by_engine(await stand.ask("POST", "/x", *fields, body=b"hello"))
    assert (seen.one("content-length"), seen.body) == (b"5", b"hello")


async def test_every_other_field_crosses_as_it_was_sent(stand: Stand) -> None:
    fields = [
        "Accept: text/event-stream",
        "Accept-Encoding: gzip, br",
        "Content-Type: application/json; charset=utf-8",
        "X-Twice: 1",
        "x-between: \xfc",
        "X-Twice: 2",
        "User-Agent: test/1",
        "anthropic-version: 2023-06-01",
        "OpenAI-Beta: x",
        "X-Empty:",
        "!#$%&'*+-.^_`|~: odd",
        "x-attachment: 1",
    ]
    seen = seen_by_engine(await stand.ask("POST", "/x", *fields, body=b"{}"))
    sent = [(name.lower(), value.strip()) for name, _, value in (field.partition(":") for field in fields)]
    names = {name.encode() for name, _ in sent}
    crossed = [
        (name.lower().decode(), value.decode("latin-1")) for name, value in seen.headers if name.lower() in names
    ]
    assert crossed == sent


async def test_nothing_is_added_in_the_callers_name(stand: Stand) -> None:
    seen = seen_by_engine(await stand.ask("GET", "/x"))
    assert {name.lower() for name, _ in seen.headers} == {
        b"host",
        b"x-attach-session",
        b"x-attach-user",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
        b"x-request-id",
    }


async def test_white_space_around_a_value_is_not_part_of_it(stand: Stand) -> None:
    seen = seen_by_engine(await stand.ask("GET", "/x", "X-A: \t b c \t ", "X-B:   "))
    assert (seen.one("x-a"), seen.one("x-b")) == (b"b c", b"")


async def test_a_head_like_the_one_before_is_its_own_callers(stand: Stand) -> None:
    tokens = [stand.token, stand.issuer.token("bob")] * 2
    seen = [seen_by_engine(await stand.ask("GET", "/same", "X-Kept: 1", token=token)) for token in tokens]
    assert [request.all("x-attach-user") for request in seen] == [[b"alice"], [b"bob"]] * 2
    assert len({request.one("x-attach-session") for request in seen}) == 2
    assert len({request.one("x-request-id") for request in seen}) == 4


async def test_a_head_almost_like_the_one_before_crosses_as_it_is(stand: Stand) -> None:
    sent = ["X-Kept: 1", "X-Kept: 2", "X-Kept:", "X-Kep: t1", "X-Kept: 1"]
    seen = [seen_by_engine(await stand.ask("POST", "/same", line, body=b"x" * len(line))) for line in sent]
    assert [request.all("x-kept") for request in seen] == [[b"1"], [b"2"], [b""], [], [b"1"]]
    assert [len(request.body) for request in seen] == [len(line) for line in sent]


@pytest.mark.parametrize("metering", ["null", "prometheus"])
@pytest.mark.parametrize("option", [[], ["X-Attach-Project: p"]], ids=["as it came", "a field taken out"])
async def test_requests_of_one_connection_each_cross_as_their_own(metering: str, option: list[str]) -> None:
    plain, stream = [b'{"model":"m","messages":[],%b"n":1}' % more for more in (b"", b'"stream":true,')]
    sent = [plain, stream, plain, stream, plain + b" ", plain]
    async with standing(USAGE_METERING=metering) as stand, stand.line() as line:
        for body in sent:
            fields = ["X-Kept: 1", "Accept-Encoding: gzip", *option]
            await line.ask(stand.request("POST", "/v1/chat/completions", *fields, body=body))
            assert (await line.answer()).status == 200
    seen = [request for request in stand.engine.received if request.method == b"POST"]
    assert [json.loads(request.body).get("stream", False) for request in seen] == [False, True] * 2 + [False] * 2
    assert [request.one("content-length") for request in seen] == [b"%d" % len(request.body) for request in seen]
    accepted = b"gzip" if metering == "null" else b"identity"
    for request in seen:
        assert (request.one("x-kept"), request.one("accept-encoding")) == (b"1", accepted)
        assert request.one("x-attach-user") == b"alice"
        assert not request.all("x-attach-project")
    assert len({request.one("x-request-id") for request in seen}) == len(sent)


async def test_heads_are_remembered_within_bounds_and_no_credential_is() -> None:
    headers = RequestHeaders(host="engine", credential=None)
    values = [*(b"%d" % number for number in range(MOST_REMEMBERED + 10)), b"x" * MOST_REMEMBERED_BYTES, b"\xff"]
    for value in values:
        scope = {
            "headers": [(b"authorization", b"Bearer secret"), (b"x-kept", value), (b"content-length", value)],
            "state": {"public_request_id": b"a-1"},
            "scheme": "https",
            "client": ("127.0.0.1", 1),
        }
        for _ in range(2):
            head = headers.head(scope, b"GET / HTTP/1.1\r\n", b"\r\n")
            assert b"\r\nx-kept: %b\r\n" % value in head
    assert 0 < len(headers.remembered) <= MOST_REMEMBERED
    parts = [part for said in headers.remembered for part in said if isinstance(part, bytes)]
    assert not any(b"secret" in part or len(part) >= MOST_REMEMBERED_BYTES for part in parts)


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        pytest.param([(b"x", b"a\r\nb: c")], {}, id="a line in a value"),
        pytest.param([(b"x y", b"a")], {}, id="a space in a name"),
        pytest.param([], {"public_request_id": b"a\nb"}, id="a line in the request id"),
        pytest.param([], {"stamp": ((b"x-attach-user", b"a\r\nb: c"),)}, id="a line in the stamp"),
        pytest.param([], {"stamp": ((b"content-length", b"1"),)}, id="a length in the stamp"),
        pytest.param([], {"stamp": ((b"host", b"b"),)}, id="a host in the stamp"),
    ],
)
async def test_no_line_of_a_head_can_end_another(fields: list[tuple[bytes, bytes]], state: dict[str, object]) -> None:
    headers = RequestHeaders(host="engine", credential=None)
    scope = {"headers": fields, "state": {"public_request_id": b"a", **state}, "scheme": "http", "client": None}
    for _ in range(2):
        with pytest.raises(httpx.LocalProtocolError):
            headers.head(scope, b"GET / HTTP/1.1\r\n", b"\r\n")


async def test_host_is_the_engines_own(stand: Stand) -> None:
    seen = seen_by_engine(await stand.ask("GET", "http://elsewhere.test/x"))
    assert seen.all("host") == [stand.engine.url.removeprefix("http://").encode()]
    assert seen.target == b"/x"


async def test_forwarded_fields_are_replaced(stand: Stand) -> None:
    forged = ["X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: https", "X-Forwarded-Host: evil.test"]
    seen = seen_by_engine(await stand.ask("GET", "/x", *forged))
    assert seen.all("x-forwarded-for") == [b"127.0.0.1"]
    assert seen.all("x-forwarded-proto") == [b"http"]
    assert seen.all("x-forwarded-host") == [b"gateway.test"]


async def test_forwarded_fields_of_a_trusted_proxy_are_continued() -> None:
    sent = [
        "X-Forwarded-For: 1.2.3.4, 5.6.7.8",
        "X-Forwarded-For: 9.9.9.9",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: public.test",
        "X-Forwarded-User: root",
    ]
    async with standing(TRUSTED_PROXIES="10.0.0.0/8,127.0.0.0/8") as stand:
        seen = seen_by_engine(await stand.ask("GET", "/x", *sent))
    assert seen.all("x-forwarded-for") == [b"1.2.3.4, 5.6.7.8, 9.9.9.9, 127.0.0.1"]
    assert seen.all("x-forwarded-proto") == [b"https"]
    assert seen.all("x-forwarded-host") == [b"public.test"]
    assert not seen.all("x-forwarded-user")


async def test_another_proxy_than_the_trusted_ones_is_not_believed() -> None:
    async with standing(TRUSTED_PROXIES="10.0.0.0/8") as stand:
        seen = seen_by_engine(await stand.ask("GET", "/x", "X-Forwarded-For: 1.2.3.4"))
    assert seen.all("x-forwarded-for") == [b"127.0.0.1"]


async def test_the_engine_gets_its_own_credential() -> None:
    async with standing(ENGINE_API_KEY="sk-engine") as stand:
        answer = await stand.ask("GET", "/x", "Connection: authorization")
        assert seen_by_engine(answer).all("authorization") == [b"Bearer sk-engine"]
        probe_seen = await stand.ask("GET", "/readyz", token=None)
        assert probe_seen.status == 200
        assert stand.engine.last.all("authorization") == [b"Bearer sk-engine"]
        assert b"sk-engine" not in answer.body + str(answer.headers).encode()


@pytest.mark.parametrize(
    "target",
    [
        "/%76%31/models",
        "//v1/models",
        "/v1//chat%2Fcompletions",
        "/api/tags?a=%20+b&a=&c",
        "/api/tags?q=/../..//%00",
        "/api/tags?x=?",
        "/caf%C3%A9/%ff",
        "/a%252fb",
        "/~!$&'()*+,=:@/-._",
        '/x|y{}^`"<>[]',
        "/api/blobs/sha256:e3b0c4",
        "/models/org%2fname:tag",
        "/...",
        "/v1.2/..x/x..",
        "/100%",
        "/",
        "/x?" + "y" * 8000,
    ],
)
async def test_the_target_reaches_the_engine_to_the_byte(stand: Stand, target: str) -> None:
    seen = seen_by_engine(await stand.ask("GET", target))
    assert seen.target == target.encode()


@pytest.mark.parametrize("prefix", ["/engine", "/engine/", "/a%20b/c"])
async def test_an_engine_below_a_path_gets_it_in_front(prefix: str, stand: Stand) -> None:
    async with standing(ENGINE_URL=stand.engine.url + prefix) as prefixed:
        before = len(stand.engine.received)
        assert (await prefixed.ask("GET", "//v1/%6dodels?x=1")).status == 200
        assert stand.engine.received[before].target == prefix.rstrip("/").encode() + b"//v1/%6dodels?x=1"


@pytest.mark.parametrize("method", ["GET", "DELETE", "HEAD", "OPTIONS"])
async def test_a_request_without_a_body_gets_none(stand: Stand, method: str) -> None:
    seen = seen_by_engine(await stand.ask(method, "/x"))
    assert not seen.all("content-length")
    assert not seen.all("transfer-encoding")


async def test_an_empty_body_stays_one(stand: Stand) -> None:
    assert seen_by_engine(await stand.ask("POST", "/x", body=b"")).one("content-length") == b"0"


@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
async def test_a_body_crosses_with_any_method(stand: Stand, method: str) -> None:
    assert seen_by_engine(await stand.ask(method, "/x", body=b"hello")).body == b"hello"


# Two readers of one request.


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        pytest.param(["Content-Length: 5", "Transfer-Encoding: chunked"], "0\r\n\r\n", id="length and chunks"),
        pytest.param(["Transfer-Encoding: chunked", "Content-Length: 5"], "0\r\n\r\n", id="chunks and length"),
        pytest.param(["Content-Length: 2", "Content-Length: 3"], "hi!", id="two lengths"),
        pytest.param(["Content-Length: 2", "Content-Length: 2"], "hi", id="one length twice"),
        pytest.param(["Content-Length: 2, 2"], "hi", id="a list of lengths"),
        pytest.param(["Content-Length: +2"], "hi", id="a sign"),
        pytest.param(["Content-Length: -2"], "hi", id="a negative length"),
        pytest.param(["Content-Length: 0x2"], "hi", id="a hexadecimal length"),
        pytest.param(["Content-Length:"], "", id="an empty length"),
        pytest.param(["Content-Length: 99999999999999999999"], "hi", id="a length beyond integers"),
        pytest.param(["Transfer-Encoding: xchunked"], "0\r\n\r\n", id="an unknown coding"),
        pytest.param(["Transfer-Encoding: identity"], "0\r\n\r\n", id="identity"),
        pytest.param(["Transfer-Encoding: chunked, identity"], "0\r\n\r\n", id="chunked, but not last"),
        pytest.param(["Transfer-Encoding: chunked"] * 2, "0\r\n\r\n", id="chunked twice"),
        pytest.param(["Transfer-Encoding: \x0bchunked"], "0\r\n\r\n", id="a vertical tab"),
        pytest.param(["Transfer-Encoding : chunked"], "0\r\n\r\n", id="a space before the colon"),
        pytest.param(["X-A: b\r\n X-Attach-User: root"], "", id="a folded line"),
        pytest.param([" X-A: b"], "", id="a line that begins with a space"),
        pytest.param(["X-A: b\nX-Attach-User: root"], "", id="a bare LF"),
        pytest.param(["X-A: b\rX-Attach-User: root"], "", id="a bare CR"),
        pytest.param(["X-A: b\0c"], "", id="a NUL"),
        pytest.param(["X-A: b\x01c"], "", id="a control character"),
        pytest.param([": b"], "", id="no name"),
        pytest.param(["X-A"], "", id="no colon"),
        pytest.param(["X(A): b"], "", id="a name that is none"),
        pytest.param(["Host: other.test"], "", id="a second Host"),
        pytest.param(["Transfer-Encoding: chunked"], "2\nhi\n0\n\n", id="chunks with bare LF"),
        pytest.param(["Transfer-Encoding: chunked"], "2;a\nhi\r\n0\r\n\r\n", id="a chunk extension with a bare LF"),
        pytest.param(["Transfer-Encoding: chunked"], "2\r\nhixx0\r\n\r\n", id="a chunk that is longer than it says"),
        pytest.param(["Transfer-Encoding: chunked"], "-2\r\nhi\r\n0\r\n\r\n", id="a negative chunk"),
    ],
)
async def test_a_request_that_can_be_read_in_two_ways_is_refused(stand: Stand, fields: list[str], body: str) -> None:
    # What a second reader could take for a request follows.
    request = stand.request("POST", "/x", *fields) + body.encode() + stand.request("GET", "/smuggled")
    refused = await stand.say(request)
    assert (refused.status, refused.code) == (400, "malformed_request")
    assert not [seen for seen in stand.engine.received if b"smuggled" in seen.target]


@pytest.mark.parametrize(
    "line", ["GET /x HTTP/1.2", "get /x HTTP/1.1", "FOO /x HTTP/1.1", "GET /x HTTP/1.1 ", " GET /x HTTP/1.1"]
)
async def test_a_request_line_that_is_none_is_refused(stand: Stand, line: str) -> None:
    request = stand.request("GET", "/x").partition(b"\r\n")[2]
    refused = await stand.say(line.encode() + b"\r\n" + request)
    assert refused.status == 400
    assert refused.seen is None


async def test_a_refused_request_does_not_lend_its_body_to_the_next(stand: Stand) -> None:
    inner = stand.request("GET", "/smuggled")
    unauthenticated = stand.request("POST", "/first", body=inner, token=None)
    async with stand.line() as line:
        await line.ask(unauthenticated + stand.request("GET", "/second"))
        first, second = await line.answer(), await line.answer()
    assert (first.status, second.status) == (401, 200)
    assert b"/smuggled" not in [seen.target for seen in stand.engine.received]
    assert stand.engine.last.target == b"/second"


async def test_pipelined_requests_are_each_judged_by_their_own_token(stand: Stand) -> None:
    tokens = [stand.token, None, stand.issuer.token("bob")]
    async with stand.line() as line:
        await line.ask(b"".join(stand.request("GET", f"/pipelined/{who}", token=who) for who in tokens))
        answers = [await line.answer() for _ in tokens]
    assert [answer.status for answer in answers] == [200, 401, 200]
    assert [answer.all("x-attach-user") for answer in answers] == [[b"alice"], [], [b"bob"]]
    users = [seen.one("x-attach-user") for seen in stand.engine.received if seen.target.startswith(b"/pipelined")]
    assert users == [b"alice", b"bob"]


@pytest.mark.parametrize("framing", ["Content-Length: 5", "Transfer-Encoding: chunked"])
async def test_an_offer_of_h2c_is_declined_and_its_body_is_a_body(stand: Stand, framing: str) -> None:
    offer = ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAAA", framing]
    body = b"hello" if "Length" in framing else b"5\r\nhello\r\n0\r\n\r\n"
    async with stand.line() as line:
        await line.ask(stand.request("POST", "/x", *offer) + body + stand.request("GET", "/y"))
        answers = [await line.answer(), await line.answer()]
    assert [answer.status for answer in answers] == [200, 200]
    first, second = stand.engine.received[-2:]
    assert (first.target, first.body) == (b"/x", b"hello")
    assert not first.all("upgrade") + first.all("http2-settings")
    assert second.target == b"/y"


# From the engine to the client.


async def test_the_answer_is_stamped_whatever_the_engine_says(stand: Stand) -> None:
    forged = [b"X-Attach-User: root", b"x-attach-session: 1", b"X-Attach-Else: 1", b"x_attach_user: root"]
    answer = await answered_with(stand, *forged)
    assert answer.all("x-attach-user") == [b"alice"]
    assert len(answer.one("x-attach-session")) == 16
    assert answer.all("x-attach-session-id") == answer.all("x-attach-session")
    assert not answer.all("x-attach-else") + answer.all("x_attach_user")


async def test_there_is_one_date_and_one_server(stand: Stand) -> None:
    answer = await answered_with(stand, b"Date: Mon, 01 Jan 2001 00:00:00 GMT", b"Server: llama/1", b"date: x")
    assert b"2001" not in answer.one("date")
    assert answer.all("server") == [b"attach-gateway"]


async def test_the_engines_cors_rules_stay_there(stand: Stand) -> None:
    answer = await answered_with(stand, b"Access-Control-Allow-Origin: *", b"access-control-allow-credentials: true")
    assert not [name for name, _ in answer.headers if name.startswith(b"access-control-")]


async def test_hop_by_hop_fields_of_the_answer_stay_there(stand: Stand) -> None:
    answer = await answered_with(
        stand,
        b"Connection: keep-alive, X-Hop",
        b"X-Hop: 1",
        b"Keep-Alive: timeout=5",
        b"Proxy-Authenticate: Basic",
        b"Upgrade: h2c",
    )
    for name in ("connection", "x-hop", "keep-alive", "proxy-authenticate", "upgrade"):
        assert not answer.all(name)


async def test_the_answers_connection_field_cannot_unframe_it(stand: Stand) -> None:
    answer = await answered_with(stand, b"Connection: content-length, x-attach-user, date", body=b"hello")
    assert (answer.one("content-length"), answer.body, answer.complete) == (b"5", b"hello", True)
    assert answer.one("x-attach-user") == b"alice"


async def test_repeated_fields_keep_their_number_and_order(stand: Stand) -> None:
    lines = [b"Set-Cookie: a=1", b"X-Other: x", b"Set-Cookie: b=2; Path=/", b"set-cookie: a=3", b"X-Obs: caf\xe9"]
    answer = await answered_with(stand, *lines)
    assert answer.all("set-cookie") == [b"a=1", b"b=2; Path=/", b"a=3"]
    assert answer.one("x-obs") == b"caf\xe9"


async def test_status_and_content_fields_arrive_as_sent(stand: Stand) -> None:
    async def teapot(received: Received, connection: Connection) -> None:
        await connection.answer(b"\x00\xff", "418 I'm a teapot", content_type="x/y; z", etag='"1"', retry_after="7")

    with stand.engine_answers(teapot):
        answer = await stand.ask("GET", "/x")
    assert (answer.status, answer.body) == (418, b"\x00\xff")
    assert [answer.one(name) for name in ("content-type", "etag", "retry-after")] == [b"x/y; z", b'"1"', b"7"]


async def test_a_refusal_of_the_engines_own_is_the_answer(stand: Stand) -> None:
    async def refuse(received: Received, connection: Connection) -> None:
        await connection.answer(b"{}", "401 Unauthorized", www_authenticate='Bearer realm="engine"')

    with stand.engine_answers(refuse):
        answer = await stand.ask("GET", "/x")
    assert (answer.status, answer.all("www-authenticate")) == (401, [b'Bearer realm="engine"'])


async def test_a_length_beside_chunks_is_not_believed(stand: Stand) -> None:
    async def both(received: Received, connection: Connection) -> None:
        await connection.head(content_length="3", transfer_encoding="chunked")
        await connection.chunk(b"hello")
        await connection.last_chunk()

    with stand.engine_answers(both):
        answer = await stand.ask("GET", "/x")
    # To refuse such an answer is as good (RFC 9112 §6.3): what may not be is a body cut at three.
    assert answer.status == 502 or (answer.body, answer.all("content-length")) == (b"hello", [])


async def test_what_follows_an_answer_is_never_somebody_elses(stand: Stand) -> None:
    async def two_for_one(received: Received, connection: Connection) -> None:
        await connection.answer(b"mine")
        await connection.answer(b"for the next")

    with stand.engine_answers(two_for_one):
        assert (await stand.ask("GET", "/x")).body == b"mine"
    for _ in range(3):
        assert (await stand.ask("GET", "/x")).body == b'{"hello": true}'


# The request id.


@pytest.mark.parametrize("given", ["a", "A-z_0.9", "x" * 128])
async def test_a_well_formed_request_id_is_echoed_and_passed_on(stand: Stand, given: str) -> None:
    answer = await stand.ask("GET", "/x", f"X-Request-Id: {given}")
    assert answer.all("x-request-id") == [given.encode()]
    assert seen_by_engine(answer).all("x-request-id") == [given.encode()]


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "a,b", "ü", "<b>", "a/b"])
async def test_any_other_request_id_is_replaced(stand: Stand, given: str) -> None:
    answer = await stand.ask("GET", "/x", f"X-Request-Id: {given}")
    assert re.fullmatch(b"[0-9a-f]{32}", answer.one("x-request-id"))
    assert seen_by_engine(answer).all("x-request-id") == [answer.one("x-request-id")]


async def test_every_request_has_its_own_id_and_the_engines_is_dropped(stand: Stand) -> None:
    first, second = [await answered_with(stand, b"X-Request-Id: engines", b"x-request-id: 2") for _ in range(2)]
    assert first.one("x-request-id") != second.one("x-request-id")
    assert b"engines" not in first.one("x-request-id")


async def test_refusals_carry_the_request_id_too(stand: Stand) -> None:
    assert (await stand.ask("GET", "/x", "X-Request-Id: mine", token=None)).one("x-request-id") == b"mine"
    assert (await stand.ask("GET", "/healthz", "X-Request-Id: mine", token=None)).one("x-request-id") == b"mine"

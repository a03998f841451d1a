"""What a client hears when there is no answer: JSON in its own dialect, one sentence, nothing of our insides."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest
import pytest_asyncio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import auth
import middleware
import proxy
import wire
from attach import create_app
from attach.errors import answer
from middleware import AccessLogMiddleware, ErrorMiddleware
from tests.gateways import Answer, Stand, standing
from tests.issuer import Issuer
from tests.servers import Connection, Engine, Received, bearer, settings_for
from wire import Refusal

in_one_loop = pytest.mark.asyncio(loop_scope="module")

OPENAI = {"message": "A bearer token is needed.", "type": "authentication_error", "param": None}
OPENAI["code"] = "missing_credentials"
ANTHROPIC = {"type": "authentication_error", "message": "A bearer token is needed."}
DIALECTS: Mapping[str, dict[str, Any]] = {
    "/v1/chat/completions": {"error": OPENAI},
    "/v1/models": {"error": OPENAI},
    "/v1": {"error": OPENAI},
    "//v1/models": {"error": OPENAI},
    "/%76%31/models": {"error": OPENAI},
    "/v1/messages": {"type": "error", "error": ANTHROPIC},
    "/v1/messages/count_tokens": {"type": "error", "error": ANTHROPIC},
    "/v1/messagesx": {"error": OPENAI},
    "/api/chat": {"error": "A bearer token is needed."},
    "/api": {"error": "A bearer token is needed."},
    "/apix": {},
    "/v1x": {},
    "/": {},
    "/mem/events": {},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stand() -> AsyncIterator[Stand]:
    async with standing(PUBLIC_URL="https://gateway.test") as stand:
        yield stand


def challenge(path: str, *more: str) -> bytes:
    metadata = f'resource_metadata="https://gateway.test/.well-known/oauth-protected-resource{path}"'
    return ", ".join(('Bearer realm="attach"', *more, metadata)).encode()


def check_form(answer: Answer, *, secrets: tuple[str, ...] = ()) -> None:
    """What is true of every refusal: one line of JSON with a sentence and a code, and nothing of our insides."""
    assert answer.one("content-type") == b"application/json"
    body = answer.json()
    assert body["detail"].endswith(".")
    assert body["code"].replace("_", "").isalpha()
    assert b"\n" not in answer.body
    whole = answer.body.decode() + str(answer.headers)
    for secret in ("Traceback", "httpx", "httpcore", "h11", "Exception", "Errno", "127.0.0.1", "localhost", *secrets):
        assert secret not in whole


@in_one_loop
@pytest.mark.parametrize("path", DIALECTS)
async def test_an_error_speaks_the_dialect_of_its_path(stand: Stand, path: str) -> None:
    refused = await stand.ask("POST", path, token=None)
    assert refused.json() == {"detail": "A bearer token is needed.", "code": "missing_credentials", **DIALECTS[path]}


@in_one_loop
async def test_without_credentials_the_challenge_names_no_error(stand: Stand) -> None:
    refused = await stand.ask("GET", "/api/tags", token=None)
    assert refused.status == 401
    assert refused.all("www-authenticate") == [challenge("/api/tags")]
    check_form(refused)


@in_one_loop
async def test_another_scheme_is_told_what_is_taken(stand: Stand) -> None:
    refused = await stand.ask("GET", "/api/tags", "Authorization: Digest username=x", token=None)
    assert refused.status == 401
    assert refused.one("www-authenticate") == challenge("/api/tags")


@in_one_loop
async def test_a_bad_token_is_told_why_in_the_challenge_too(stand: Stand) -> None:
    token = stand.issuer.token(aud="https://elsewhere.test")
    refused = await stand.ask("GET", "/api/tags", token=token)
    assert (refused.status, refused.code) == (401, "invalid_token")
    description = 'error_description="The token is meant for another audience."'
    assert refused.one("www-authenticate") == challenge("/api/tags", 'error="invalid_token"', description)
    check_form(refused, secrets=(token, "elsewhere"))


@in_one_loop
@pytest.mark.parametrize(
    "field",
    ["Authorization: Bearer", "Authorization: Bearer a b", "Authorization: Basic %%%", "x-api-key: ü"],
)
async def test_credentials_that_cannot_be_read_are_a_bad_request(stand: Stand, field: str) -> None:
    refused = await stand.ask("GET", "/api/tags", field, token=None)
    assert (refused.status, refused.code) == (400, "invalid_request")
    assert b'error="invalid_request"' in refused.one("www-authenticate")
    check_form(refused)


@in_one_loop
async def test_a_transfer_coding_other_than_chunked_is_not_passed_on_as_plain(stand: Stand) -> None:
    request = stand.request("POST", "/api/chat", "Transfer-Encoding: gzip, chunked") + b"2\r\nhi\r\n0\r\n\r\n"
    refused = await stand.say(request)
    assert (refused.status, refused.code) == (501, "not_supported")
    assert refused.seen is None
    check_form(refused)


async def test_an_engine_that_is_down_is_told_within_a_second() -> None:
    async with standing() as stand:
        assert (await stand.ask("GET", "/api/tags")).status == 200
        await stand.engine.die()
        start = time.perf_counter()
        refused = await stand.ask("GET", "/api/tags")
        assert time.perf_counter() - start < 1
        assert (refused.status, refused.code) == (502, "engine_unreachable")
        check_form(refused, secrets=(stand.engine.url, stand.token))


async def test_an_engine_that_says_nothing_is_given_up_at_the_limit() -> None:
    async def silent(received: Received, connection: Connection) -> None:
        await connection.closed()

    async with standing(silent, ENGINE_READ_TIMEOUT="0.3") as stand:
        start = time.perf_counter()
        refused = await stand.ask("POST", "/v1/chat/completions", body=b"{}")
        assert 0.3 <= time.perf_counter() - start < 2
        assert (refused.status, refused.code) == (504, "engine_timeout")
        check_form(refused)


async def test_an_engine_that_falls_silent_leaves_a_broken_stream() -> None:
    async def stuck(received: Received, connection: Connection) -> None:
        await connection.head(content_type="text/event-stream", transfer_encoding="chunked")
        await connection.chunk(b"data: 1\n\n")
        await connection.closed()

    async with standing(stuck, ENGINE_READ_TIMEOUT="0.3") as stand:
        answer = await stand.ask("POST", "/v1/chat/completions", body=b"{}")
        assert (answer.status, answer.body, answer.complete) == (200, b"data: 1\n\n", False)
    assert "code=engine_timeout" in stand.access_lines[-1]


async def test_the_limit_is_for_silence_and_not_for_the_whole() -> None:
    async def slow(received: Received, connection: Connection) -> None:
        await connection.head(transfer_encoding="chunked")
        for _ in range(8):
            await asyncio.sleep(0.1)
            await connection.chunk(b"x")
        await connection.last_chunk()

    async with standing(slow, ENGINE_READ_TIMEOUT="0.6") as stand:
        answer = await stand.ask("GET", "/x")
        assert (answer.body, answer.complete) == (b"x" * 8, True)


BROKEN_ANSWERS = {
    "not HTTP": b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
    "another protocol": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
    "status below any": b"HTTP/1.1 099 Odd\r\nContent-Length: 0\r\n\r\n",
    "status beyond any": b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n",
    "status just beyond": b"HTTP/1.1 600 Odd\r\nContent-Length: 0\r\n\r\n",
    "status with two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
    "negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nhi",
    "length that is no number": b"HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nhi",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi!",
    "unknown transfer coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    "CR in a value": b"HTTP/1.1 200 OK\r\nX-A: b\rSet-Cookie: evil\r\nContent-Length: 2\r\n\r\nhi",
    "NUL in a value": b"HTTP/1.1 200 OK\r\nX-A: b\x00c\r\nContent-Length: 2\r\n\r\nhi",
    "control character in a value": b"HTTP/1.1 200 OK\r\nX-A: b\x01c\r\nContent-Length: 2\r\n\r\nhi",
    "DEL in a value": b"HTTP/1.1 200 OK\r\nX-A: b\x7fc\r\nContent-Length: 2\r\n\r\nhi",
    "space before the colon": b"HTTP/1.1 200 OK\r\nX-A : b\r\nContent-Length: 2\r\n\r\nhi",
    "name that is none": b"HTTP/1.1 200 OK\r\nX(A): b\r\nContent-Length: 2\r\n\r\nhi",
    "cut in the head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "nothing": b"",
}


@in_one_loop
@pytest.mark.parametrize("raw", BROKEN_ANSWERS.values(), ids=BROKEN_ANSWERS)
async def test_an_answer_that_is_not_http_is_a_bad_gateway(
    stand: Stand, raw: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(received: Received, connection: Connection) -> None:
        await connection.send(raw)
        connection.writer.close()

    with stand.engine_answers(broken):
        refused = await stand.ask("GET", "/v1/models")
    assert (refused.status, refused.code) == (502, "engine_broken")
    check_form(refused)
    assert not caplog.records  # It is no bug of ours.


async def test_without_the_issuers_keys_nobody_is_let_in_or_called_a_forger() -> None:
    async with Issuer.start() as issuer:
        await issuer.go_down()
        async with standing(issuer=issuer) as stand:
            refused = await stand.ask("GET", "/api/tags")
            assert (refused.status, refused.code) == (503, "issuer_unavailable")
            assert int(refused.one("retry-after")) >= 1
            assert not refused.all("www-authenticate")
            assert refused.seen is None
            check_form(refused, secrets=(issuer.url,))


async def test_a_bug_in_an_endpoint_is_a_500_with_the_request_id_and_a_logged_trace(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken() -> None:
        raise KeyError("a secret of ours")

    async with Issuer.start() as issuer, Engine() as engine:
        app = create_app(settings_for(issuer, engine.url, ACCESS_LOG="off"))
        (await app.endpoints.made()).add_api_route("/usage/broken", broken)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway.test") as client,
        ):
            failed = await client.get("/usage/broken", headers=bearer(issuer.token()))
    body = failed.json()
    assert failed.status_code == 500
    assert body["code"] == "internal_error"
    assert body["request_id"] == failed.headers["x-request-id"]
    assert failed.headers["x-attach-user"] == "alice"
    assert "a secret of ours" not in failed.text
    (record,) = caplog.records
    assert (record.name, record.message) == ("middleware.errors", "request.failed")
    assert record.exc_info is not None
    assert vars(record)["request_id"] == body["request_id"]


async def passed(app: ASGIApp) -> tuple[list[Message], Scope]:
    """What a client of `app` is sent, and the scope of its request."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError

    scope: Scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    await AccessLogMiddleware(ErrorMiddleware(app, answer=lambda exc, scope: answer(exc)), log=None)(
        scope, receive, send
    )
    return sent, scope


async def test_a_bug_after_the_status_line_adds_nothing_to_the_stream(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise KeyError("late")

    sent, scope = await passed(app)
    assert [message["type"] for message in sent] == ["http.response.start"]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert scope["state"]["code"] == "internal_error"


async def test_errors_that_name_each_other_as_their_cause_are_answered(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            raise KeyError("first")
        except KeyError as first:
            second = ValueError("second")
            first.__cause__ = second
            raise second from first

    sent, _ = await passed(app)
    assert sent[0]["status"] == 500
    assert [record.message for record in caplog.records] == ["request.failed"]


def every_error() -> list[type[Exception]]:
    public = [getattr(package, name) for package in (auth, middleware, proxy) for name in package.__all__]
    return [kind for kind in public if isinstance(kind, type) and issubclass(kind, Exception)]


FAMILIES = {auth.AuthError, auth.SigningKeyError, proxy.UpstreamError}
ARGUMENTS: Mapping[type[Exception], tuple[Any, ...]] = {
    auth.InvalidRequest: ("malformed",),
    auth.InvalidToken: ("expired",),
    auth.InsufficientScope: ("tasks:write",),
    auth.IssuerUnavailable: (0.2,),
    middleware.InvalidOption: ("X-Attach-Memory is either on or off.",),
    proxy.ExchangeEnded: (wire.Refusal(status=500, code="ended", detail="This exchange was ended."),),
}


@pytest.mark.parametrize("kind", [kind for kind in every_error() if kind not in FAMILIES])
def test_every_error_has_its_answer(kind: type[Exception]) -> None:
    refusal = answer(kind(*ARGUMENTS.get(kind, ())))
    assert refusal is not None
    assert 400 <= refusal.status <= 599
    if refusal.status == 401:
        assert refusal.headers["WWW-Authenticate"].startswith("Bearer ")
    if refusal.status in (429, 503):
        assert int(refusal.headers["Retry-After"]) >= 1


def test_a_stranger_among_errors_is_a_bug() -> None:
    assert answer(RuntimeError("x")) is None


STOPPED = Refusal(status=503, code="stopping", detail="Stopped.")


@pytest.mark.parametrize(
    ("path", "media_type", "event"),
    [
        ("/api/chat", "application/x-ndjson", b'{"error": "Stopped."}\n'),
        (
            "/v1/chat/completions",
            "text/event-stream; charset=utf-8",
            b'data: {"error": {"message": "Stopped.", "type": "server_error", "param": null, "code": "stopping"}}\n\n',
        ),
        (
            "/v1/messages",
            "Text/Event-Stream",
            b'event: error\ndata: {"type": "error", "error": {"type": "overloaded_error", "message": "Stopped."}}\n\n',
        ),
        ("/v1/audio/speech", "audio/mpeg", None),
        ("/api/chat", "application/json", None),
        ("/api/chat", "", None),
    ],
)
def test_a_running_stream_is_ended_in_its_own_dialect(path: str, media_type: str, event: bytes | None) -> None:
    assert STOPPED.frame(path, media_type) == event


@pytest.mark.parametrize("said", ['Ein "Zeichen"\nzu viel: ü', "half a character: \ud83d"], ids=["quotes", "surrogate"])
def test_what_is_said_is_one_line_of_json_whatever_it_is(said: str) -> None:
    refusal = Refusal(status=400, code="x", detail=said, extra={"field": said})
    body = refusal.body("/v1/x")
    assert b"\n" not in body
    assert json.loads(body)["error"]["message"] == json.loads(body)["field"] == said
    frame = refusal.frame("/api/chat", "application/x-ndjson")
    assert frame is not None
    assert json.loads(frame)["error"] == said
    assert frame.count(b"\n") == 1

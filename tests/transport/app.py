"""What the honest servers serve: an application that shows what reached it, in every framing."""

import gzip
import hashlib
import json
from typing import Any

Scope = dict[str, Any]
ETAG = b'"v1"'


async def app(scope: Scope, receive: Any, send: Any) -> None:
    """Answers by path; see each branch."""
    assert scope["type"] == "http"
    _, kind, *rest = scope["path"].split("/")

    async def answer(status: int, headers: list[tuple[bytes, bytes]], *pieces: bytes) -> None:
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    match kind:
        case "echo":
            text = json.dumps(await received(scope, receive)).encode()
            await answer(200, [(b"content-type", b"application/json"), length(text)], text)
        case "status":
            await answer(int(rest[0]), [])
        case "length":
            body = b"x" * int(rest[0])
            await answer(200, [length(body)], body)
        case "chunks":
            await answer(200, [(b"content-type", b"text/plain")], *[b"%d\n" % i for i in range(int(rest[0]))])
        case "cookies":
            await answer(200, [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"), length(b"")])
        case "etag":
            fresh = (b"if-none-match", ETAG) in scope["headers"]
            await answer(304 if fresh else 200, [(b"etag", ETAG)], *([] if fresh else [b"body"]))
        case "redirect":
            await answer(302, [(b"location", b"/echo"), length(b"")])
        case "gzip":
            packed = gzip.compress(b"hello" * 100, mtime=0)
            await answer(200, [(b"content-encoding", b"gzip"), length(packed)], packed)
        case "latin":
            await answer(200, [(b"x-name", b"caf\xe9"), length(b"")])
        case "close":
            await answer(200, [(b"connection", b"close"), length(b"bye")], b"bye")
        case "refuse":
            await answer(413, [length(b"too much")], b"too much")
        case "duplex":
            await duplex(receive, send)
        case _:
            await answer(404, [length(b"not here")], b"not here")


async def duplex(receive: Any, send: Any) -> None:
    """Answers each piece as it comes."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    more = True
    while more:
        message = await receive()
        more = message.get("more_body", False)
        await send({"type": "http.response.body", "body": message.get("body", b"").upper(), "more_body": more})


async def received(scope: Scope, receive: Any) -> dict[str, object]:
    """The request as it arrived; of its body the size and the hash."""
    size, digest, more = 0, hashlib.sha256(), True
    while more:
        message = await receive()
        size += len(message["body"])
        digest.update(message["body"])
        more = message["more_body"]
    query = "?" + scope["query_string"].decode("latin-1") if scope["query_string"] else ""
    return {
        "method": scope["method"],
        "target": scope["raw_path"].decode("latin-1") + query,
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]],
        "size": size,
        "sha256": digest.hexdigest(),
    }


def length(body: bytes) -> tuple[bytes, bytes]:
    return b"content-length", b"%d" % len(body)

"""A gateway for one machine answers only to that machine's own names."""

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Scope

from middleware.host import ForeignHost, LoopbackHostMiddleware, is_loopback_name

OURS = [
    "localhost",
    "localhost:8080",
    "LocalHost:1",
    "127.0.0.1",
    "127.0.0.1:8080",
    "127.255.0.9:9",
    "[::1]",
    "[::1]:80",
]
THEIRS = {
    "a page's own name": "attacker.example",
    "a page's own name with our port": "attacker.example:8080",
    "a name that begins like ours": "localhost.attacker.example",
    "an address that begins like ours": "127.0.0.1.attacker.example",
    "a name that ends like ours": "attacker-localhost:8080",
    "a name below ours": "app.localhost",
    "the final dot": "localhost.",
    "the wildcard address": "0.0.0.0:8080",
    "another private address": "192.168.0.1",
    "a short address": "127.1",
    "an octal address": "0177.0.0.1",
    "an address as one number": "2130706433",
    "digits of another script": "١٢٧.0.0.1",
    "IPv6 without brackets": "::1",
    "another IPv6 address": "[::2]",
    "a mapped address": "[::ffff:127.0.0.1]",
    "a name in brackets": "[localhost]",
    "a user part": "localhost@attacker.example",
    "a port that is a name": "localhost:attacker.example",
    "two ports": "localhost:1:2",
    "a line end": "localhost\n",
    "spaces": " localhost",
    "nothing": "",
    "only a port": ":8080",
}


def client() -> httpx.AsyncClient:
    app = LoopbackHostMiddleware(PlainTextResponse("inside"))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")


@pytest.mark.parametrize("host", OURS)
async def test_this_machines_own_names_pass(host: str) -> None:
    async with client() as http:
        answer = await http.get("/", headers={"Host": host})
    assert answer.text == "inside"


@pytest.mark.parametrize("host", THEIRS.values(), ids=THEIRS)
async def test_any_other_name_is_refused(host: str) -> None:
    async with client() as http:
        with pytest.raises(ForeignHost):
            await http.get("/", headers=[(b"host", host.encode())])


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    "headers", [[], [(b"host", b"localhost"), (b"host", b"attacker.example")]], ids=["none", "two of them"]
)
async def test_the_host_must_be_said_once(kind: str, headers: list[tuple[bytes, bytes]]) -> None:
    async def unreached(*_: object) -> None:
        pytest.fail("the request went through")

    scope: Scope = {"type": kind, "headers": headers}
    with pytest.raises(ForeignHost):
        await LoopbackHostMiddleware(unreached)(scope, unreached, unreached)  # type: ignore[arg-type]


async def test_the_start_of_the_server_is_no_request() -> None:
    seen: list[str] = []

    async def app(scope: Scope, *_: object) -> None:
        seen.append(scope["type"])

    await LoopbackHostMiddleware(app)({"type": "lifespan"}, app, app)  # type: ignore[arg-type]
    assert seen == ["lifespan"]


@pytest.mark.parametrize(
    ("name", "loopback"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.0.0.2", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("192.168.1.5", False),
        ("gateway.example", False),
    ],
)
def test_only_loopback_may_be_bound(name: str, loopback: bool) -> None:
    assert is_loopback_name(name) is loopback

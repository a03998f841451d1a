"""Parts of the gateway as a server, to see what each of them costs: `python -m bench.partial bare|auth PORT SETTINGS`.

`bare` is the server, the engine proxy and nothing else; `auth` adds the error and the auth layer. SETTINGS is a JSON
file of environment variables.
"""

import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from attach import Settings
from attach.errors import answer
from attach.listener import listen
from attach.parts import build_transport
from attach.server import build_server
from attach.verification import build_issuer_client, build_verifier
from auth import Identity
from middleware import AuthMiddleware, ErrorMiddleware
from proxy import EngineProxy

IDS = {"request_id": "bench", "public_request_id": b"bench", "answer_started": False}
ANYBODY = Identity(user="bench", subject="bench", issuer="bench", claims={}, scheme="oidc")


class Given:
    """Stands where the layers outside of those under test would, and leaves what they would leave in the state."""

    def __init__(self, app: ASGIApp, **state: object) -> None:
        self.app = app
        self.state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"].update(self.state)
        await self.app(scope, receive, send)


class Fork:
    """HTTP to the layers under test, the lifespan to the framework."""

    def __init__(self, layers: ASGIApp, rest: ASGIApp) -> None:
        self.layers = layers
        self.rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self.layers if scope["type"] == "http" else self.rest)(scope, receive, send)


def compose(settings: Settings, *, auth: bool) -> FastAPI:
    """The engine proxy behind nothing, or behind errors and auth."""
    transport = build_transport(settings)
    engine = EngineProxy(transport, settings.engine)
    client = build_issuer_client()
    verifier = build_verifier(settings, client)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(transport)
            await stack.enter_async_context(client)
            stack.push_async_callback(verifier.aclose)
            await verifier.warm()
            yield

    app = FastAPI(lifespan=lifespan)
    known = AuthMiddleware(engine, verifier=verifier, public=())
    checked = ErrorMiddleware(known, answer=lambda exc, scope: answer(exc))
    layers = Given(checked, **IDS) if auth else Given(engine, **IDS, identity=ANYBODY)
    app.middleware_stack = Fork(layers, app.router)
    app.state.readiness = SimpleNamespace(draining=False)
    app.state.stop = engine.stop
    return app


def main(arguments: Sequence[str]) -> None:
    """Serve until told to stop."""
    part, port, settings_file = arguments
    settings = Settings.from_environ(json.loads(Path(settings_file).read_text()))
    app = compose(settings, auth=part == "auth")
    build_server(app, settings.server).run(sockets=[listen("127.0.0.1", int(port))])


if __name__ == "__main__":
    main(sys.argv[1:])

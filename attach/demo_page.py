"""The live demo's page."""

import base64
import hashlib
import re

from fastapi import APIRouter
from fastapi.responses import Response

from .demo import demo_folder
from .paths import DEMO

_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


def demo_routes() -> APIRouter:
    """The page. There is no token in it: it comes in the address's fragment, which no server sees, or is typed."""
    router = APIRouter(redirect_slashes=False)
    page = (demo_folder() / "static" / "demo.html").read_text(encoding="utf-8")
    headers = {
        "Cache-Control": "no-store",
        "Content-Security-Policy": content_policy(page),
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }

    async def demo() -> Response:
        """Two agents at work for one user, to look at."""
        return Response(page, headers=headers, media_type="text/html")

    router.add_api_route(DEMO, demo, methods=["GET"], tags=["gateway"], response_model=None)
    router.add_api_route(DEMO, demo, methods=["HEAD"], include_in_schema=False, response_model=None)
    return router


def content_policy(page: str) -> str:
    """A policy (CSP 3) that lets run what stands in `page`, and lets it talk to the gateway, and nothing else."""
    hashes: dict[str, list[str]] = {"script": [], "style": []}
    for kind, text in _INLINE.findall(page):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        hashes[kind].append(f"'sha256-{digest}'")
    return (
        f"default-src 'none'; script-src {' '.join(hashes['script'])}; style-src {' '.join(hashes['style'])};"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )

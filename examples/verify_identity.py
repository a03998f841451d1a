"""An upstream that believes the gateway's signature and nothing else.

    pip install joserfc
    python examples/verify_identity.py            # an upstream on port 9100
    PUBLIC_URL=http://localhost:8080 ENGINE_URL=http://localhost:9100 IDENTITY_JWT=on attach-gateway

Every request through the gateway is answered with who made it; one that comes to port 9100 by another way, whatever it
says in `X-Attach-User`, is refused.
"""

import json
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

GATEWAY = "http://localhost:8080"  # its PUBLIC_URL
UPSTREAM = "http://localhost:9100"  # its ENGINE_URL, as it is written there
LOOK_AGAIN_SECONDS = 30.0


class IdentityCheck:
    """Checks `X-Attach-Identity` against the keys that the gateway publishes."""

    def __init__(self, gateway: str, upstream: str) -> None:
        self.gateway = gateway
        self.keys = KeySet([])
        self.looked_at = -LOOK_AGAIN_SECONDS
        self.claims = jwt.JWTClaimsRegistry(
            iss={"essential": True, "value": gateway},
            aud={"essential": True, "value": upstream},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
        )

    def caller(self, token: str) -> dict[str, Any]:
        """What the gateway says of who calls. Raises `ValueError` for what is not its token, or not for us."""
        try:
            return self._verified(token)
        except (JoseError, ValueError):
            if time.monotonic() - self.looked_at < LOOK_AGAIN_SECONDS:
                raise ValueError("not a token of the gateway for this upstream") from None
        self._fetch_keys()  # It may have rotated them.
        return self.caller(token)

    def _verified(self, token: str) -> dict[str, Any]:
        # The algorithm is ours to say, not the token's; and the gateway's other tokens have another type.
        signed = jwt.decode(token, self.keys, algorithms=["EdDSA"])
        if signed.header.get("typ") != "attach-identity+jwt":
            raise ValueError("a token of another kind")
        self.claims.validate(signed.claims)
        return signed.claims

    def _fetch_keys(self) -> None:
        self.looked_at = time.monotonic()
        with urllib.request.urlopen(f"{self.gateway}/.well-known/jwks.json", timeout=5) as answer:
            self.keys = KeySet.import_key_set(json.load(answer))


class Upstream(BaseHTTPRequestHandler):
    check = IdentityCheck(GATEWAY, UPSTREAM)

    def do_GET(self) -> None:
        try:
            caller = self.check.caller(self.headers.get("X-Attach-Identity", ""))
        except (ValueError, OSError):
            self._answer(401, {"error": "come through the gateway"})
        else:
            self._answer(200, {"user": caller["sub"], "session": caller["sid"], "scope": caller["scope"]})

    do_POST = do_GET  # noqa: N815

    def _answer(self, status: int, members: dict[str, Any]) -> None:
        body = json.dumps(members).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", 9100), Upstream).serve_forever()

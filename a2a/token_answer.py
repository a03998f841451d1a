"""How a token is given out (RFC 6749 §5.1)."""

from typing import Any

UNKEPT = {"Cache-Control": "no-store"}


def issued(token: str) -> dict[str, Any]:
    """The document that it stands in."""
    return {"access_token": token, "token_type": "Bearer", "expires_in": 600}

"""The one token that a request carries."""

from __future__ import annotations

import base64
import string
from collections.abc import Iterable

from .interface import InvalidRequest, MissingCredentials
from .jws import MAX_TOKEN_BYTES

# A Basic password travels in base64 behind a name, which takes more room than the token itself.
MAX_FIELD_BYTES = 2 * MAX_TOKEN_BYTES

# token68 (RFC 9110 §11.2), and a colon: the documented form of a DID token begins with the DID itself.
_TOKEN_BYTES = (string.ascii_letters + string.digits + "-._~+/=:").encode()


def credential(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The bearer token in the raw header fields of a request (lower-case names, as ASGI has them).

    It comes as `Authorization: Bearer`, as the password of `Authorization: Basic` for clients that only take a URL with
    user:password, or as `x-api-key`; never in the query (RFC 9700 §4.3.2). What it is worth is not asked here.

    Raises:
        MissingCredentials: There is none, or one of a scheme that is not taken.
        InvalidRequest: There are two that differ, or one that is malformed or longer than any token may be.
    """
    authorization = api_key = None
    for name, value in headers:
        if name == b"authorization":
            if authorization is not None:
                raise InvalidRequest("conflict")
            authorization = value
        elif name == b"x-api-key":
            if api_key is not None:
                raise InvalidRequest("conflict")
            api_key = value
    if authorization is None:
        if api_key is None:
            raise MissingCredentials
        return _token(api_key.strip(b" \t"))
    token = _authorization_token(authorization.strip(b" \t"))
    if api_key is not None and token != _token(api_key.strip(b" \t")):
        raise InvalidRequest("conflict")
    return token


def lone_authorization(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """The `Authorization` field where it is the only one that could hold a credential; None where it is not."""
    authorization = None
    for name, value in headers:
        if name == b"x-api-key" or (name == b"authorization" and authorization is not None):
            return None
        if name == b"authorization":
            authorization = value
    return authorization


def _authorization_token(field: bytes) -> str:
    if len(field) > MAX_FIELD_BYTES:
        raise InvalidRequest("too_large")
    scheme, _, credentials = field.partition(b" ")
    if not credentials:
        raise InvalidRequest("scheme")
    match scheme.lower():
        case b"bearer":
            return _token(credentials.lstrip(b" "))
        case b"basic":
            return _token(_password(credentials.lstrip(b" ")))
    # RFC 6750 §3.1: a client that tried another scheme is told what is taken, not that it made a mistake.
    raise MissingCredentials("scheme")


def _password(encoded: bytes) -> bytes:
    """The password in Basic credentials (RFC 7617 §2)."""
    try:
        _, colon, password = base64.b64decode(encoded, validate=True).partition(b":")
    except ValueError as error:
        raise InvalidRequest("malformed") from error
    if not colon:
        raise InvalidRequest("malformed")
    return password


def _token(raw: bytes) -> str:
    if len(raw) > MAX_TOKEN_BYTES:
        raise InvalidRequest("too_large")
    if not raw or raw.translate(None, _TOKEN_BYTES):
        raise InvalidRequest("malformed")
    return raw.decode("ascii")

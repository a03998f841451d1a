"""A real OpenID Connect issuer on loopback, as honest or as hostile as a test needs."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import ssl
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import ip_address
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

AUDIENCE = "https://gateway.test"
DISCOVERY = "/.well-known/openid-configuration"
JWKS = "/.well-known/jwks"
CONVENTIONAL_JWKS = "/.well-known/jwks.json"

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
HASHES: dict[str, hashes.HashAlgorithm] = {
    "256": hashes.SHA256(),
    "256K": hashes.SHA256(),
    "384": hashes.SHA384(),
    "512": hashes.SHA512(),
}
CURVES: dict[str, tuple[ec.EllipticCurve, str, int]] = {
    "ES256": (ec.SECP256R1(), "P-256", 32),
    "ES384": (ec.SECP384R1(), "P-384", 48),
    "ES512": (ec.SECP521R1(), "P-521", 66),
    "ES256K": (ec.SECP256K1(), "secp256k1", 32),
}
_serial = count(1)


def b64(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def b64_integer(number: int, size: int | None = None) -> str:
    return b64(number.to_bytes(size or (number.bit_length() + 7) // 8, "big"))


def compact(
    header: Mapping[str, Any] | bytes, claims: Mapping[str, Any] | bytes, sign: Callable[[bytes], bytes]
) -> str:
    """A compact JWS over exactly these parts, whatever they are."""
    parts = (part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, claims))
    signing_input = ".".join(b64(part) for part in parts)
    return f"{signing_input}.{b64(sign(signing_input.encode()))}"


def hs256(secret: bytes) -> Callable[[bytes], bytes]:
    """What a forger does who takes a public key for a shared secret."""
    return lambda signing_input: hmac.new(secret, signing_input, hashlib.sha256).digest()


@dataclass(frozen=True, kw_only=True)
class IssuerKey:
    """A private key, the algorithm it signs with, and the name under which it is published."""

    alg: str
    kid: str | None
    private: PrivateKey

    def jwk(self, **changes: Any) -> dict[str, Any]:
        """The public half as it is published; a change to None leaves the member out."""
        members = {**_public_members(self.private), "alg": self.alg, "use": "sig", "kid": self.kid, **changes}
        return {name: value for name, value in members.items() if value is not None}

    def sign(self, signing_input: bytes, alg: str | None = None) -> bytes:
        alg = alg or self.alg
        match self.private:
            case rsa.RSAPrivateKey() as private:
                digest = HASHES[alg[2:]]
                pss = padding.PSS(padding.MGF1(digest), digest.digest_size)
                return private.sign(signing_input, pss if alg.startswith("PS") else padding.PKCS1v15(), digest)
            case ec.EllipticCurvePrivateKey() as private:
                size = (private.curve.key_size + 7) // 8
                r, s = utils.decode_dss_signature(private.sign(signing_input, ec.ECDSA(HASHES[alg[2:]])))
                return r.to_bytes(size, "big") + s.to_bytes(size, "big")
            case private:
                return private.sign(signing_input)


async def refreshes_done() -> None:
    """Wait for the key refreshes that run in the background."""
    refreshes = [task for task in asyncio.all_tasks() if task.get_name().startswith("jwks ")]
    if refreshes:
        await asyncio.wait(refreshes)


def make_key(alg: str, kid: str | None = "", *, fresh: int = 0) -> IssuerKey:
    """A key to sign with `alg`. Making RSA keys is slow, so the same `fresh` gives the same private key each time."""
    return IssuerKey(alg=alg, kid=f"{alg}-{next(_serial)}" if kid == "" else kid, private=_private(_kind(alg), fresh))


def rsa_key(bits: int, kid: str = "rsa") -> IssuerKey:
    return IssuerKey(alg="RS256", kid=kid, private=_private(f"RSA{bits}", 0))


@dataclass(kw_only=True)
class Reply:
    """What the issuer answers on one path instead of the truth."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    endless: bool = False  # The body is repeated until the client has had enough.


class Issuer:
    """An issuer with discovery and a JWK Set. What it publishes and how can be changed at any time.

    Attributes:
        url: Its name, without a final slash.
        keys: What its JWK Set holds now.
        issuer: What discovery calls it; None: there is no discovery document.
        jwks_uri: Where discovery says the keys are.
        replies: Answers that replace the true ones, by path.
        cache_control: What goes with the JWK Set.
        jwks_fetches: How often the JWK Set was asked for, wherever it is.
        discovery_fetches: How often the discovery document was asked for.
        requests: Every request head that arrived.
        authority: The certificate to trust, in PEM, where the issuer speaks TLS.
    """

    _slots_in_use: ClassVar[set[int]] = set()

    def __init__(self, slot: int, algorithms: Sequence[str], clock: Callable[[], float]) -> None:
        self.clock = clock
        self.keys = [make_key(alg, fresh=slot) for alg in algorithms]
        self.audience = AUDIENCE
        self.replies: dict[str, Reply] = {}
        self.cache_control: str | None = None
        self.jwks_fetches = 0
        self.discovery_fetches = 0
        self.requests: list[str] = []
        self.url = ""
        self.issuer: str | None = None
        self.jwks_uri = ""
        self._rotations = slot
        self.authority = ""
        self._tls: ssl.SSLContext | None = None
        self._port = 0
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._open = asyncio.Event()
        self._open.set()
        self._asked = asyncio.Event()

    @classmethod
    @asynccontextmanager
    async def start(
        cls,
        *,
        algorithms: Sequence[str] = ("RS256", "ES256", "EdDSA"),
        clock: Callable[[], float] = time.time,
        tls: bool = False,
    ) -> AsyncIterator[Self]:
        """An issuer with one key for each of `algorithms`; it signs with the first unless told otherwise.

        With `tls` its name is an https one, and `authority` is who signed its certificate. Issuers that run at the
        same time share no private key, neither with each other nor with `make_key`.
        """
        slot = next(slot for slot in count(1000, 1000) if slot not in cls._slots_in_use)
        cls._slots_in_use.add(slot)
        issuer = cls(slot, algorithms, clock)
        if tls:
            issuer.authority, issuer._tls = _certified()
        await issuer.come_back()
        issuer.url = issuer.issuer = f"{'https' if tls else 'http'}://127.0.0.1:{issuer._port}"
        issuer.jwks_uri = issuer.url + JWKS
        try:
            yield issuer
        finally:
            cls._slots_in_use.discard(slot)
            await issuer.go_down()

    def token(
        self,
        sub: str | None = "alice",
        *,
        alg: str | None = None,
        key: IssuerKey | None = None,
        header: Mapping[str, Any] | None = None,
        without: Collection[str] = (),
        sign: Callable[[bytes], bytes] | None = None,
        **claims: Any,
    ) -> str:
        """A token for `sub`, good for ten minutes but for what is changed.

        Args:
            alg: The algorithm, and with it which of our keys signs.
            key: The key that signs, published or not.
            header: Members to add or replace; None leaves a member out.
            without: Claims to leave out.
            sign: What signs instead of the key.
            claims: Claims to add or replace.
        """
        key = key or next(key for key in self.keys if alg in (None, key.alg))
        alg = alg or key.alg
        now = int(self.clock())
        members = {
            "iss": self.issuer or self.url,
            "sub": sub,
            "aud": self.audience,
            "iat": now,
            "exp": now + 600,
            **claims,
        }
        named = {"alg": alg, "typ": "JWT", "kid": key.kid, **(header or {})}
        return compact(
            {name: value for name, value in named.items() if value is not None},
            {name: value for name, value in members.items() if name not in without},
            sign or (lambda signing_input: key.sign(signing_input, alg)),
        )

    def rotate(self, alg: str = "RS256", *, kid: str | None = "", overlap: bool = False) -> IssuerKey:
        """Publish a new key, alone or (`overlap`) before the old ones, and sign with it from now on."""
        self._rotations += 1
        key = make_key(alg, kid, fresh=self._rotations)
        self.keys = [key, *self.keys] if overlap else [key]
        return key

    def published(self) -> Reply:
        """The JWK Set as it is now."""
        body = json.dumps({"keys": [key.jwk() for key in self.keys]}).encode()
        return Reply(body=body, headers={"Cache-Control": self.cache_control} if self.cache_control else {})

    def hold(self) -> None:
        """Answer nothing any more until `release`."""
        self._open.clear()

    def release(self) -> None:
        self._open.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a request, answered or not, has made `condition` true."""
        while not condition():
            self._asked.clear()
            await self._asked.wait()

    async def go_down(self) -> None:
        """Refuse connections, and break those that are open."""
        if self._server is not None:
            self._server.close()
            for task in tuple(self._connections):
                task.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)
            await self._server.wait_closed()
            self._server = None

    async def come_back(self) -> None:
        """Accept connections, at the same place as before."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self._port, ssl=self._tls)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.requests.append(head)
            path = head.split(" ")[1].partition("?")[0]
            self.discovery_fetches += path == DISCOVERY
            self.jwks_fetches += path in (JWKS, CONVENTIONAL_JWKS)
            self._asked.set()
            await self._open.wait()
            await self._answer(writer, self.replies.get(path) or self._truth(path))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        except asyncio.CancelledError:
            writer.transport.abort()  # We go down, and nobody may be reading what is still to be sent.
        finally:
            self._connections.discard(task)
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, reply: Reply) -> None:
        headers = {"Content-Type": "application/json", "Connection": "close", **reply.headers}
        if not reply.endless:
            headers.setdefault("Content-Length", str(len(reply.body)))
        fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"HTTP/1.1 {reply.status} Test\r\n{fields}\r\n".encode() + reply.body)
        await writer.drain()
        while reply.endless:
            writer.write(reply.body)
            await writer.drain()

    def _truth(self, path: str) -> Reply:
        if path == DISCOVERY and self.issuer is not None:
            return Reply(body=json.dumps({"issuer": self.issuer, "jwks_uri": self.jwks_uri}).encode())
        if path in (JWKS, CONVENTIONAL_JWKS):
            return self.published()
        return Reply(status=404, body=b"{}")


def _kind(alg: str) -> str:
    return alg if alg in CURVES else "Ed25519" if alg in ("EdDSA", "Ed25519") else "RSA2048"


@cache
def _certified() -> tuple[str, ssl.SSLContext]:
    """A certificate for 127.0.0.1 that vouches for itself, in PEM, and the server's side of it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "attach test issuer")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(Encoding.PEM)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with TemporaryDirectory() as folder:
        chain = Path(folder) / "chain.pem"
        chain.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + pem)
        context.load_cert_chain(chain)
    return pem.decode(), context


@cache
def _private(kind: str, fresh: int) -> PrivateKey:
    if kind in CURVES:
        return ec.generate_private_key(CURVES[kind][0])
    if kind == "Ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(65537, int(kind.removeprefix("RSA")))


def _public_members(private: PrivateKey) -> dict[str, str]:
    match private:
        case rsa.RSAPrivateKey():
            rsa_numbers = private.public_key().public_numbers()
            return {"kty": "RSA", "n": b64_integer(rsa_numbers.n), "e": b64_integer(rsa_numbers.e)}
        case ec.EllipticCurvePrivateKey():
            _, crv, size = next(row for row in CURVES.values() if row[0].name == private.curve.name)
            ec_numbers = private.public_key().public_numbers()
            x, y = b64_integer(ec_numbers.x, size), b64_integer(ec_numbers.y, size)
            return {"kty": "EC", "crv": crv, "x": x, "y": y}
        case _:
            return {"kty": "OKP", "crv": "Ed25519", "x": b64(private.public_key().public_bytes_raw())}

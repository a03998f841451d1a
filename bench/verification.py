"""What it costs to verify a token that was never seen: `script/bench verification [TOKENS]`.

Every token is another one, made before the clock starts and verified once by everything that a gateway verifies with;
only the network is left out. The wallet's rows are with the journal in a file, as they are in a gateway.
"""

import asyncio
import hashlib
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
from coincurve import PrivateKey
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from auth import (
    Delegation,
    DIDSettings,
    DIDVerifier,
    GatewayIssuer,
    Identity,
    OIDCSettings,
    OIDCVerifier,
    RememberingVerifier,
    TokenPicker,
    WalletTokenVerifier,
    WalletVerifier,
    load_or_create,
)
from auth.did import account_did
from auth.ethereum import checksummed, keccak256, personal_message_digest
from auth.jwk import verifying_key
from auth.strict import encode_base64url
from auth.wallet import WALLET_AUDIENCE, WALLET_ISSUER, WALLET_TYPE
from store import Journal, JournalOnce

ISSUER, AUDIENCE = "https://issuer.test", "https://gateway.test"
ROUNDS = 5
Sign = Callable[[bytes], bytes]
_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Microseconds of processor time a token, in all threads, in the best of the rounds."""

    form: str
    first_sight: float
    remembered: float


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A gateway's verifier, and what hands out its nonces and its own tokens."""

    verifier: RememberingVerifier
    wallets: WalletVerifier
    own: GatewayIssuer


@dataclass
class Signers:
    """The keys that sign, and what their tokens begin with: header and standing claims, by form."""

    oidc: dict[str, tuple[Sign, dict[str, Any]]]
    dids: dict[str, tuple[Sign, str, str]]
    wallet: PrivateKey

    @property
    def address(self) -> str:
        return checksummed("0x" + keccak256(self.wallet.public_key.format(compressed=False)[1:])[12:].hex())


def make_signers() -> Signers:
    """One key for each row."""
    rsa_key = rsa.generate_private_key(65537, 2048)
    p256, ed = ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()
    k256, wallet = ec.generate_private_key(ec.SECP256K1()), PrivateKey()
    oidc: dict[str, tuple[Sign, dict[str, Any]]] = {
        "RS256": (
            lambda raw: rsa_key.sign(raw, padding.PKCS1v15(), hashes.SHA256()),
            _jwk(rsa_key.public_key(), "RS256"),
        ),
        "ES256": (lambda raw: _raw_ecdsa(p256, raw), _jwk(p256.public_key(), "ES256")),
        "EdDSA": (ed.sign, _jwk(ed.public_key(), "EdDSA")),
    }
    signers = Signers(oidc=oidc, dids={}, wallet=wallet)
    point = (Encoding.X962, PublicFormat.CompressedPoint)
    signers.dids = {
        "did:key Ed25519": (ed.sign, "EdDSA", _did_key(b"\xed\x01", ed.public_key().public_bytes_raw())),
        "did:key P-256": (
            lambda raw: _raw_ecdsa(p256, raw),
            "ES256",
            _did_key(b"\x80\x24", p256.public_key().public_bytes(*point)),
        ),
        "did:key secp256k1": (
            lambda raw: _raw_ecdsa(k256, raw),
            "ES256K",
            _did_key(b"\xe7\x01", k256.public_key().public_bytes(*point)),
        ),
        "did:pkh ES256K-R": (
            lambda raw: wallet.sign_recoverable(hashlib.sha256(raw).digest(), hasher=None),
            "ES256K-R",
            f"did:pkh:eip155:1:{signers.address}",
        ),
    }
    return signers


@asynccontextmanager
async def verifying(signers: Signers, directory: Path) -> AsyncIterator[Bench]:
    """A gateway's verifier, with an issuer that answers without a network."""
    keys = {"keys": [jwk for _, jwk in signers.oidc.values()]}
    documents = {
        "/.well-known/openid-configuration": {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/jwks"},
        "/jwks": keys,
    }

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=httpx.ByteStream(json.dumps(documents[request.url.path]).encode()))

    transport = httpx.MockTransport(answer)
    wanted = DIDSettings(audiences=(AUDIENCE,), login="open")
    async with httpx.AsyncClient(transport=transport) as client, Journal(directory) as journal:
        store, own = JournalOnce(journal), load_or_create(directory)
        wallets = WalletVerifier(wanted, own, store)
        picker = TokenPicker(
            [
                OIDCVerifier(OIDCSettings(issuer=ISSUER, audiences=(AUDIENCE,)), client),
                WalletTokenVerifier(wanted, own),
            ],
            dids=DIDVerifier(wanted, store),
            wallets=wallets,
            delegation=Delegation(own, name=AUDIENCE),
        )
        verifier = RememberingVerifier(picker, capacity=1_000_000)
        await verifier.check()
        yield Bench(verifier=verifier, wallets=wallets, own=own)
        await verifier.aclose()


def tokens_of(form: str, count: int, signers: Signers, bench: Bench) -> list[str]:
    """`count` different good tokens."""
    now = int(time.time())
    if form == "SIWE bearer":
        return [_wallet_bearer(signers, bench.wallets.challenge()["nonce"]) for _ in range(count)]
    if form == "wallet token":
        who = {"iss": WALLET_ISSUER, "sub": account_did(1, signers.address), "aud": WALLET_AUDIENCE}
        traded = {**who, "iat": now, "exp": now + 600}
        return [bench.own.sign(WALLET_TYPE, {**traded, "jti": str(number)}) for number in range(count)]
    if form == "agent's token":
        agents = Delegation(bench.own, name=AUDIENCE)
        user = Identity(user="alice", subject="alice", issuer=ISSUER, claims={}, scheme="oidc")
        return [agents.delegate(user, agent="planner", task=str(n), session="5e55") for n in range(count)]
    if form in signers.oidc:
        sign, jwk = signers.oidc[form]
        header, claims = {"alg": form, "kid": jwk["kid"]}, {"iss": ISSUER, "sub": "alice"}
    else:
        sign, alg, did = signers.dids[form]
        header, claims = {"alg": alg}, {"iss": did}
    standing = {**claims, "aud": AUDIENCE, "iat": now, "exp": now + 600}
    return [_signed(sign, header, {**standing, "jti": str(number)}) for number in range(count)]


async def measure(count: int = 500) -> list[Cost]:
    """Verify `count` tokens of each form, several times over."""
    signers = make_signers()
    costs = []
    for form in (*signers.oidc, *signers.dids, "SIWE bearer", "wallet token", "agent's token"):
        first, again = [], []
        for _ in range(ROUNDS):
            with TemporaryDirectory() as folder:
                async with verifying(signers, Path(folder)) as bench:
                    early, *tokens = tokens_of(form, count + 1, signers, bench)
                    await bench.verifier.verify(early)  # which may import something
                    first.append(await _each(bench.verifier, tokens))
                    again.append(await _each(bench.verifier, tokens))
        costs.append(Cost(form=form, first_sight=min(first), remembered=min(again)))
    return costs


def main(arguments: Sequence[str]) -> int:
    """Print the table."""
    costs = asyncio.run(measure(int(arguments[0]) if arguments else 500))
    print("| form | first sight, us | remembered, us |\n|---|---|---|")
    for cost in costs:
        print(f"| {cost.form} | {cost.first_sight:.0f} | {cost.remembered:.1f} |")
    return 0


async def _each(verifier: RememberingVerifier, tokens: Sequence[str]) -> float:
    started = time.process_time()  # what other programs take away is nobody's cost
    for token in tokens:
        await verifier.verify(token)
    return (time.process_time() - started) / len(tokens) * 1e6


def _wallet_bearer(signers: Signers, nonce: str) -> str:
    issued, expires = (datetime.fromtimestamp(time.time() + offset, UTC).isoformat() for offset in (0, 600))
    message = (
        f"gateway.test wants you to sign in with your Ethereum account:\n{signers.address}\n\n\n"
        f"URI: {AUDIENCE}\nVersion: 1\nChain ID: 1\nNonce: {nonce}\nIssued At: {issued}\nExpiration Time: {expires}"
    ).encode()
    signature = signers.wallet.sign_recoverable(personal_message_digest(message), hasher=None)
    return f"siwe.{encode_base64url(message)}.{encode_base64url(signature)}"


def _signed(sign: Sign, header: Mapping[str, Any], claims: Mapping[str, Any]) -> str:
    signing_input = ".".join(encode_base64url(json.dumps(part).encode()) for part in (header, claims))
    return f"{signing_input}.{encode_base64url(sign(signing_input.encode()))}"


def _raw_ecdsa(key: ec.EllipticCurvePrivateKey, raw: bytes) -> bytes:
    r, s = utils.decode_dss_signature(key.sign(raw, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def _jwk(key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey, alg: str) -> dict[str, Any]:
    return {**dict(verifying_key(key).public), "alg": alg, "kid": alg, "use": "sig"}


def _did_key(code: bytes, raw: bytes) -> str:
    number, text = int.from_bytes(code + raw, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = _ALPHABET[digit] + text
    return f"did:key:z{text}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

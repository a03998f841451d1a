"""No attack on a token that we know of opens the gateway, in any form of token that it takes."""

from __future__ import annotations

import base64
import hmac
import json
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import cycle, permutations, product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from hypothesis import given, settings
from hypothesis import strategies as st

from attach.settings import DevSettings
from auth import (
    AuthError,
    Delegation,
    DIDSettings,
    DIDVerifier,
    GatewayIssuer,
    Identity,
    InvalidRequest,
    InvalidToken,
    LocalVerifier,
    RememberingVerifier,
    TokenPicker,
    TokenVerifier,
    TrustedIssuer,
    WalletTokenVerifier,
    WalletVerifier,
    credential,
    load_or_create,
)
from auth.delegation import DELEGATED_ISSUER, DELEGATED_TYPE
from auth.issuer import DEV_AUDIENCE, DEV_ISSUER, DEV_TYPE
from auth.signing_keys import KEY_FILE
from auth.wallet import WALLET_AUDIENCE, WALLET_ISSUER, WALLET_TYPE
from store import MemoryOnce
from tests.clock import Clock
from tests.dids import AUDIENCE, KEY_CODES, Person, account, negated, person, wallet_bearer
from tests.gateways import Answer, Stand
from tests.issuer import Issuer, IssuerKey, b64, compact, hs256, make_key
from tests.servers import Engine, serve_gateway, settings_for

ORDERS = {
    "ES256": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "ES384": 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
    "ES512": int("01ff" + "ff" * 31 + "fa51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409", 16),
    "ES256K": 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141,
}
ORDERS["ES256K-R"] = ORDERS["ES256K"]
Claims = Mapping[str, Any]

in_one_loop = pytest.mark.asyncio(loop_scope="module")


@dataclass(frozen=True, kw_only=True)
class Form:
    """A kind of JWT that the gateway takes, and everything to forge it with: an honest key, as if it were stolen.

    Attributes:
        lead: What stands before the token.
        public: The public key in every encoding that somebody might take for a secret.
    """

    header: Mapping[str, Any]
    claims: Claims
    sign: Callable[[bytes], bytes]
    public: tuple[bytes, ...]
    lead: str = ""

    @property
    def alg(self) -> str:
        alg: str = self.header["alg"]
        return alg

    def make(
        self,
        header: Mapping[str, Any] | bytes | None = None,
        claims: Claims | bytes | None = None,
        *,
        sign: Callable[[bytes], bytes] | None = None,
    ) -> str:
        """A token that is good but for what is changed: members by name, the whole by bytes."""
        head = header if isinstance(header, bytes) else {**self.header, **(header or {})}
        body = claims if isinstance(claims, bytes) else {**self.claims, **(claims or {})}
        return self.lead + compact(head, body, sign or self.sign)

    def touched(self, touch: Callable[[bytes], bytes]) -> str:
        return self.make(sign=lambda raw: touch(self.sign(raw)))

    def without(self, name: str) -> str:
        body = {key: value for key, value in self.claims.items() if key != name}
        return self.lead + compact(self.header, body, self.sign)

    def json(self, old: str, new: str) -> str:
        """The token with `old` replaced in the text of its claims, and signed so."""
        text = json.dumps(self.claims)
        assert old in text
        return self.make(claims=text.replace(old, new, 1).encode())

    def parts(self, change: Callable[[list[str]], Iterable[str]]) -> str:
        """The token with its segments changed, without signing again."""
        return self.lead + ".".join(change(self.make().removeprefix(self.lead).split(".")))


FORMS = (
    *(f"oidc {alg}" for alg in ("RS256", "ES256", "EdDSA")),
    *(f"did:key {alg}" for alg in KEY_CODES),
    *(f"did:jwk {alg}" for alg in KEY_CODES),
    "did:pkh ES256K-R",
    "did:pkh ES256K",
    "did before did:key EdDSA",
    "did before did:pkh ES256K-R",
    "dev EdDSA",
    "wallet EdDSA",
    "delegated EdDSA",
)
EC_FORMS = tuple(name for name in FORMS if name.split(" ")[-1] in ORDERS)
ATTACKER = make_key("EdDSA", "attacker", fresh=666)


class Stage(Stand):
    """A gateway that takes tokens in every form, in front of an engine that must not hear of any attack."""

    directory: Path

    def form(self, name: str) -> Form:
        kind, _, alg = name.rpartition(" ")
        match kind.removeprefix("did before "):
            case "oidc":
                return self._oidc(alg)
            case "dev":
                return self._own(DEV_TYPE, DEV_ISSUER, DEV_AUDIENCE, "dev")
            case "wallet":
                return self._own(WALLET_TYPE, WALLET_ISSUER, WALLET_AUDIENCE, account().did)
            case "delegated":
                form = self._own(DELEGATED_TYPE, DELEGATED_ISSUER, AUDIENCE, "alice")
                hop = {"act": {"sub": "planner"}, "sid": "5e55", "task": "t1", "scope": "attach:engine"}
                return replace(form, claims={**form.claims, **hop})
            case "did:pkh":
                somebody = account().person(alg)
                public = (somebody.did.encode(), bytes.fromhex(account().address[2:]))
            case method:
                somebody = person(alg, method.removeprefix("did:"))
                public = (somebody.did.encode(), somebody.did.partition("z")[2].encode())
        return self._did(somebody, public, lead=f"{somebody.did}." if kind.startswith("did before") else "")

    def _oidc(self, alg: str) -> Form:
        key = next(key for key in self.issuer.keys if key.alg == alg)
        now = int(self.issuer.clock())
        claims = {"iss": self.issuer.url, "sub": "alice", "aud": self.issuer.audience, "iat": now, "exp": now + 600}
        header = {"alg": alg, "typ": "JWT", "kid": key.kid}
        return Form(header=header, claims=claims, sign=key.sign, public=_encodings(key))

    def _did(self, somebody: Person, public: tuple[bytes, ...], *, lead: str) -> Form:
        header = {"alg": somebody.alg, "typ": "JWT", "kid": f"{somebody.did}#{somebody.fragment}"}
        return Form(header=header, claims=somebody.claims(), sign=somebody.sign, public=public, lead=lead)

    def _own(self, typ: str, iss: str, aud: str, sub: str) -> Form:
        private = cast("Ed25519PrivateKey", load_pem_private_key((self.directory / KEY_FILE).read_bytes(), None))
        key = IssuerKey(alg="EdDSA", kid=load_or_create(self.directory).kid, private=private)
        now = int(self.issuer.clock())
        claims = {"iss": iss, "sub": sub, "aud": aud, "iat": now, "exp": now + 600}
        header = {"alg": "EdDSA", "typ": typ, "kid": key.kid}
        return Form(header=header, claims=claims, sign=key.sign, public=_encodings(key))

    async def present(self, token: str, *fields: str) -> Answer:
        """Show `token` to the gateway as a bearer, in a request with no more than that."""
        head = ["GET /v1/models HTTP/1.1", "Host: localhost", f"Authorization: Bearer {token}", *fields, "", ""]
        return await self.say("\r\n".join(head).encode())

    async def opens(self, token: str) -> bool:
        """Whether the gateway would take the token out of a header. Whatever is no refusal of the token is raised."""
        try:
            await self.verifier.verify(credential([(b"authorization", f"Bearer {token}".encode())]))
        except (InvalidRequest, InvalidToken):
            return False
        return True

    async def nonce(self) -> str:
        answer = await self.say(b"GET /auth/nonce HTTP/1.1\r\nHost: localhost\r\n\r\n")
        nonce: str = answer.json()["nonce"]
        return nonce

    @property
    def verifier(self) -> TokenVerifier:
        verifier: TokenVerifier = self.gateway.server.config.app.state.verifier  # type: ignore[union-attr]
        return verifier


def _encodings(key: IssuerKey) -> tuple[bytes, ...]:
    public = key.private.public_key()
    spki = PublicFormat.SubjectPublicKeyInfo
    pem, der = public.public_bytes(Encoding.PEM, spki), public.public_bytes(Encoding.DER, spki)
    return (
        pem,
        pem.strip(),
        der,
        json.dumps(key.jwk()).encode(),
        next(iter(key.jwk(kty=None, crv=None).values())).encode(),
    )


@asynccontextmanager
async def staging() -> AsyncIterator[Stage]:
    with TemporaryDirectory() as folder:
        directory = Path(folder) / ".attach"
        variables = {"PUBLIC_URL": AUDIENCE, "DID_LOGIN": "open", "ATTACH_DATA_DIR": str(directory)}
        async with Issuer.start() as issuer, Engine() as engine:
            wanted = settings_for(issuer, engine.url, **variables)
            # Dev tokens are taken in dev mode only; here they are beside the others.
            wanted = replace(wanted, dev=DevSettings(issuer=load_or_create(directory)))
            async with serve_gateway(wanted) as gateway:
                stage = Stage(issuer, engine, gateway, issuer.token())
                stage.directory = directory
                yield stage


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage() -> AsyncIterator[Stage]:
    async with staging() as stage:
        yield stage


Attack = Callable[[Form], str]
Touch = Callable[[bytes], bytes]


def header(members: Mapping[str, Any], *, sign: Touch | None = None) -> Attack:
    """Members of the header are replaced, and `sign` or the honest key signs that."""
    return lambda form: form.make(members, sign=sign)


def claims(members: Claims | bytes) -> Attack:
    """Claims are replaced, or all of them by bytes, and signed so."""
    return lambda form: form.make(claims=members)


def member(name: str, text: str) -> Attack:
    """A claim has a value that only the text of JSON can have."""
    return lambda form: form.json(f'"{name}": {json.dumps(form.claims[name])}', f'"{name}": {text}')


def further(text: str) -> Attack:
    """A member more stands before the claims."""
    return lambda form: form.json("{", "{" + text + ", ")


def twice(name: str) -> Attack:
    return lambda form: further(f'"{name}": {json.dumps(form.claims[name])}')(form)


def without(name: str) -> Attack:
    return lambda form: form.without(name)


def touched(touch: Touch) -> Attack:
    """The honest signature is changed."""
    return lambda form: form.touched(touch)


def keyed(digest: str, number: int) -> Attack:
    """An HMAC whose secret is what everybody knows."""

    def attack(form: Form) -> str:
        secret = form.public[number % len(form.public)]
        return form.make({"alg": f"HS{digest}"}, sign=lambda raw: hmac.digest(secret, raw, f"sha{digest}"))

    return attack


def later(part: str, change: Callable[[int], int]) -> Attack:
    return lambda form: form.make(claims={part: change(form.claims["iat"])})


def respelled(part: int, change: Callable[[str], str]) -> Attack:
    """One segment is changed after it was signed."""
    return lambda form: form.parts(lambda parts: [change(t) if n == part else t for n, t in enumerate(parts)])


def in_der(form: Form) -> str:
    def der(signature: bytes) -> bytes:
        half = len(signature) // 2
        r, s = signature[:half], signature[half : 2 * half]
        return encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))

    return form.touched(der)


def stray_bits(form: Form) -> str:
    """The signature in another spelling: its last character holds bits that count for nothing."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

    def last(text: str) -> str:
        return text[:-1] + alphabet[alphabet.index(text[-1]) ^ 1] if len(text) % 4 else text + "="

    return respelled(2, last)(form)


KIDS = ("../../../../dev/null", "' OR 1=1 --", "\0", "https://evil.test/key", "x" * 2000, "0", "a\r\nb: c")
TYPES = ("logout+jwt", "dpop+jwt", "attach-identity+jwt", "attach-agent+jwt", "secevent+jwt", "JOSE")
TIMES = ("null", "NaN", "Infinity", "-Infinity", "1e999", "-1", "true", '"4102444800"', "[]", "{}", "9" * 5000)
SUBJECTS = {
    "empty": "",
    "null": None,
    "a list": ["alice"],
    "a number": 7,
    "two lines": "alice\r\nX-Attach-User: root",
    "a NUL": "alice\0",
    "not ASCII": "älice",
    "padded": "alice ",
    "10 KB": "a" * 10_000,
}
SPELLINGS: dict[str, Callable[[str], str]] = {
    "padding": lambda text: text + "=",
    "two paddings": lambda text: text + "==",
    "a space": lambda text: text[:9] + " " + text[9:],
    "a tab": lambda text: text[:9] + "\t" + text[9:],
    "a foreign character": lambda text: text[:9] + "?" + text[9:],
    "the other alphabet": lambda text: text[:9] + "+" + text[10:],
    "a slash": lambda text: text[:9] + "/" + text[10:],
    "a character less": lambda text: text[:-1],
    "a character more": lambda text: text + "A",
    "a character changed": lambda text: text[:9] + ("A" if text[9] != "A" else "B") + text[10:],
    "nothing": lambda text: "",
}

HEADER_ATTACKS: dict[str, Attack] = {
    **{
        f"alg {alg}, unsigned": header({"alg": alg}, sign=lambda _: b"") for alg in ("none", "None", "NONE", "nOnE", "")
    },
    **{f"alg {alg}, signed": header({"alg": alg}) for alg in ("none", "NoNe", "HS256", "RS512", "ES521", "dir")},
    "no alg": header({"alg": None}),
    "alg is a list": header({"alg": ["EdDSA"]}),
    "alg in lower case": lambda form: form.make({"alg": form.alg.lower()}),
    "alg with a space": lambda form: form.make({"alg": f"{form.alg} "}),
    "unsigned under its own alg": header({}, sign=lambda _: b""),
    **{f"HS{bits} with public key {n}": keyed(bits, n) for bits, n in product(("256", "384", "512"), range(5))},
    "own alg, keyed with the public key": lambda form: form.make(sign=hs256(form.public[0])),
    "HS256 with an empty key": header({"alg": "HS256"}, sign=hs256(b"")),
    "embedded jwk": header({"alg": "EdDSA", "jwk": ATTACKER.jwk()}, sign=ATTACKER.sign),
    "embedded jwk, honestly signed": header({"jwk": ATTACKER.jwk()}),
    "jku": header({"jku": "https://evil.test/jwks"}),
    "x5u": header({"x5u": "https://evil.test/x5u"}),
    "x5c": header({"x5c": ["MIIB"]}),
    "crit": header({"crit": ["exp"]}),
    "empty crit": header({"crit": []}),
    "b64 false": header({"b64": False, "crit": ["b64"]}),
    "b64 true": header({"b64": True}),
    "zip": header({"zip": "DEF"}),
    "cty": header({"cty": "JWT"}),
    "enc": header({"enc": "A256GCM"}),
    **{f"kid {kid!r:.30}": header({"kid": kid}) for kid in KIDS},
    "kid is a number": header({"kid": 0}),
    "kid is an object": header({"kid": {"a": 1}}),
    "typ is a number": header({"typ": 1}),
    **{f"typ {typ}": header({"typ": typ}) for typ in TYPES},
    "alg twice": lambda form: form.make(json.dumps(form.header).replace("{", '{"alg": "none", ', 1).encode()),
    "header is a list": lambda form: form.make(b"[]"),
    "header is null": lambda form: form.make(b"null"),
    "header with a byte order mark": lambda form: form.make(b"\xef\xbb\xbf" + json.dumps(form.header).encode()),
}

CLAIM_ATTACKS: dict[str, Attack] = {
    **{f"without {name}": without(name) for name in ("iss", "aud", "exp", "iat")},
    **{f"{name} is {text:.20}": member(name, text) for name, text in product(("exp", "iat"), TIMES)},
    **{f"nbf is {text:.20}": further(f'"nbf": {text}') for text in (*TIMES[:5], *TIMES[6:], "4102444800")},
    **{f"{name} twice": twice(name) for name in ("iss", "aud", "exp")},
    "sub twice": further('"sub": "a", "sub": "b"'),
    "sub twice, once escaped": further('"sub": "a", "s\\u0075b": "b"'),
    **{f"sub is {what}": claims({"sub": sub}) for what, sub in SUBJECTS.items()},
    "half a surrogate": further('"x": "\\ud800"'),
    "expired": later("exp", lambda now: now - 61),
    "from the future": later("iat", lambda now: now + 300),
    "in milliseconds": later("exp", lambda now: (now + 600) * 1000),
    "for somebody else": claims({"aud": "https://elsewhere.test"}),
    "for a longer name": lambda form: form.make(claims={"aud": f"{form.claims['aud']}.evil.test"}),
    "for a list of numbers": claims({"aud": [1, 2]}),
    "for our name among numbers": lambda form: form.make(claims={"aud": [form.claims["aud"], 1]}),
    "bound to a key": claims({"cnf": {"jkt": "x"}}),
    "claims are a list": claims(b"[]"),
    "claims are text": claims(b'"iss"'),
    "claims are nothing": claims(b""),
    "claims are not UTF-8": claims(b'{"iss": "\xff"}'),
    "claims are deep": claims(b'{"a":' + b"[" * 3000 + b"]" * 3000 + b"}"),
    "claims are two objects": lambda form: form.make(claims=json.dumps(form.claims).encode() * 2),
    "issued by nobody": claims({"iss": "https://evil.test"}),
    "issued by a list": lambda form: form.make(claims={"iss": [form.claims["iss"]]}),
    "issued by another DID": claims({"iss": person("ES256", fresh=77).did}),
}

BYTE_ATTACKS: dict[str, Attack] = {
    **{f"{what} in part {part}": respelled(part, SPELLINGS[what]) for part, what in product(range(3), SPELLINGS)},
    "another spelling of the signature": stray_bits,
    "padding at the end": lambda form: form.make() + "===",
    "two segments": lambda form: form.parts(lambda parts: parts[:2]),
    "four segments": lambda form: form.parts(lambda parts: [*parts, parts[2]]),
    "five segments": lambda form: form.parts(lambda parts: [*parts, "", ""]),
    "a dot before": lambda form: "." + form.make(),
    "a dot after": lambda form: form.make() + ".",
    "the signature is cut": touched(lambda signature: signature[:-1]),
    "the signature is longer": touched(lambda signature: signature + b"\0"),
    "the signature has a zero before": touched(lambda signature: b"\0" + signature),
    "the signature is flipped": touched(lambda signature: bytes([signature[0] ^ 1]) + signature[1:]),
    "the signature is zeros": touched(lambda signature: bytes(len(signature))),
    "the signature is ones": touched(lambda signature: b"\xff" * len(signature)),
    "the signature is of other text": lambda form: form.make(sign=lambda raw: form.sign(raw + b"x")),
    "the signature is the attacker's": header({}, sign=ATTACKER.sign),
    "the signature is in DER": in_der,
    "the signature is in hex": touched(lambda signature: signature.hex().encode()),
    "the signature is halves swapped": touched(lambda s: s[len(s) // 2 :] + s[: len(s) // 2]),
    "r is zero": touched(lambda s: bytes(len(s) // 2) + s[len(s) // 2 :]),
    "s is zero": touched(lambda s: s[: len(s) // 2] + bytes(len(s) - len(s) // 2)),
}

ATTACKS = {**HEADER_ATTACKS, **CLAIM_ATTACKS, **BYTE_ATTACKS}


@pytest.mark.parametrize("name", FORMS)
@in_one_loop
async def test_a_good_token_of_every_form_gets_in(stage: Stage, name: str) -> None:
    form = stage.form(name)
    for _ in range(2):
        answer = await stage.present(form.make())
        assert answer.status == 200
        assert answer.seen is not None


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
@in_one_loop
async def test_an_attack_gets_nowhere(stage: Stage, attack: Attack, caplog: pytest.LogCaptureFixture) -> None:
    assert [name for name in FORMS if await stage.opens(attack(stage.form(name)))] == []
    assert errors(caplog) == []


@in_one_loop
async def test_each_attack_is_a_refusal_and_one_access_line_that_says_why(caplog: pytest.LogCaptureFixture) -> None:
    async with staging() as stage:
        forms = cycle([stage.form(name) for name in FORMS])
        for name, attack in ATTACKS.items():
            answer = await stage.present(attack(next(forms)))
            assert answer.status in (400, 401), name
            assert answer.code in ("invalid_request", "invalid_token"), name
            assert not answer.all("x-attach-user")
        assert not [seen for seen in stage.engine.received if seen.all("x-request-id")]
    assert len(stage.access_lines) == len(ATTACKS)
    assert all(re.search(r" 40[01] GET /v1/models user=- ", line) for line in stage.access_lines)
    assert all(" reason=" in line and " reason=- " not in line for line in stage.access_lines)
    assert errors(caplog) == []


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")]


@pytest.mark.parametrize("name", EC_FORMS)
@in_one_loop
async def test_a_high_s_is_taken_where_no_rule_forbids_it_and_only_in_range(stage: Stage, name: str) -> None:
    form = stage.form(name)
    order = ORDERS[form.alg]

    def with_s(change: Callable[[int], int], signature: bytes) -> bytes:
        half, rest = (32, signature[64:]) if form.alg.startswith("ES256K") else (len(signature) // 2, b"")
        s = change(int.from_bytes(signature[half : 2 * half], "big"))
        return signature[:half] + s.to_bytes(half, "big") + bytes(byte ^ 1 for byte in rest)

    assert (await stage.present(form.touched(lambda signature: with_s(lambda s: order - s, signature)))).status == 200
    beyond: tuple[Callable[[int], int], ...] = (lambda s: order, lambda s: 0)
    for change in beyond:
        assert (await stage.present(form.touched(lambda signature, c=change: with_s(c, signature)))).status == 401  # type: ignore[misc]


@pytest.mark.parametrize("name", FORMS)
@in_one_loop
async def test_a_token_of_one_form_is_none_of_another(stage: Stage, name: str) -> None:
    """Whoever can sign one kind of token signs what another kind would say."""
    ours = stage.form(name)
    for other in map(stage.form, FORMS):
        if other.claims["iss"] == ours.claims["iss"] or other.header.get("kid") == ours.header.get("kid"):
            continue  # One key's own: what tells them apart is their type.
        for header in ({}, {"kid": other.header["kid"]}, dict(other.header)):
            assert not await stage.opens(other.lead + ours.make(header, other.claims).removeprefix(ours.lead))


@pytest.mark.parametrize("name", FORMS)
@in_one_loop
async def test_a_good_token_counts_in_its_place_alone(stage: Stage, name: str) -> None:
    token = stage.form(name).make()

    async def say(*fields: str, target: str = "/api/chat", body: str = "") -> Answer:
        head = [f"POST {target} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *fields, "", body]
        return await stage.say("\r\n".join(head).encode())

    assert (await say(f"Authorization: Bearer {token}")).status == 200
    for field in (f"Authorization: Bearer {token}", "Authorization: Bearer x", "X-Api-Key: x", "Authorization:"):
        twice = await say(f"Authorization: Bearer {token}", field)
        assert (twice.status, twice.code, twice.seen) == (400, "invalid_request", None)
    nowhere = [
        await say(target=f"/api/chat?access_token={token}"),
        await say(target=f"/api/chat?token={token}"),
        await say(f"Cookie: token={token}"),
        await say(f"X-Authorization: Bearer {token}"),
        await say(f"Proxy-Authorization: Bearer {token}"),
        await say("Content-Type: application/x-www-form-urlencoded", body=f"access_token={token}"),
        await say(f"Authorization: DPoP {token}"),
        await say(f"Authorization: Token {token}"),
    ]
    assert {(answer.status, answer.code) for answer in nowhere} == {(401, "missing_credentials")}
    assert all(answer.seen is None for answer in nowhere)
    for field in (f"Authorization: {token}", "Authorization: Bearer", f"Authorization: Bearer {token} {token}"):
        answer = await say(field)
        assert answer.status in (400, 401)
    basic = base64.b64encode(f"x:{token}:".encode()).decode()
    assert (await say(f"Authorization: Basic {basic}")).status in (400, 401)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("size", [20_000, 100_000, 1_000_000])
@in_one_loop
async def test_a_token_of_any_size_is_an_answer(stage: Stage, name: str, size: int) -> None:
    form = stage.form(name)
    for token in (form.make(claims={"sub": "a" * size}), form.lead + "." * size, form.lead + "a" * size):
        with pytest.raises(AuthError) as refused:
            await stage.verifier.verify(token)
        assert refused.value.reason == "too_large"
    if size < 65_000:
        assert (await stage.present("a" * size)).status == 400
    elif size < 1_000_000:
        assert (await stage.present("a" * size)).status == 431


WalletAttack = Callable[[bytes, bytes], str]


def resigned(change: Touch) -> WalletAttack:
    """The message is changed, and signed so."""
    return lambda message, _: wallet_bearer(change(message), account().personal_sign(change(message)))


def rewritten(part: int, change: Callable[[str], str]) -> WalletAttack:
    """One segment is changed after it was signed."""

    def attack(message: bytes, signature: bytes) -> str:
        segments = enumerate((b64(message), b64(signature)))
        return "siwe." + ".".join(change(text) if n == part else text for n, text in segments)

    return attack


SIWE_ATTACKS: dict[str, WalletAttack] = {
    **{f"{what} in part {part}": rewritten(part, SPELLINGS[what]) for part, what in product(range(2), SPELLINGS)},
    "no signature": lambda m, s: f"siwe.{b64(m)}",
    "a third segment": lambda m, s: wallet_bearer(m, s) + ".YQ",
    "another prefix": lambda m, s: wallet_bearer(m, s).replace("siwe.", "SIWE."),
    "no prefix": lambda m, s: wallet_bearer(m, s).removeprefix("siwe."),
    "its DID before it": lambda m, s: f"{account().did}.{wallet_bearer(m, s)}",
    "windows line ends": resigned(lambda m: m.replace(b"\n", b"\r\n")),
    "a line more": resigned(lambda m: m + b"\n"),
    "a NUL more": resigned(lambda m: m + b"\0"),
    "a field twice": resigned(lambda m: m.replace(b"Version: 1\n", b"Version: 1\nVersion: 1\n")),
    "10 KB": resigned(lambda m: m.replace(b"Let me in.", b"a" * 10_000)),
    "the signature of other text": lambda m, s: wallet_bearer(m, account().personal_sign(m + b"x")),
    "the signature of a JWT": lambda m, s: wallet_bearer(m, account().person().sign(m)),
    "as a JWT": lambda m, s: compact({"alg": "ES256K-R"}, m, lambda _: s),
    "somebody else": lambda m, s: wallet_bearer(m, account(2).personal_sign(m)),
    "zeros": lambda m, s: wallet_bearer(m, bytes(65)),
    "r is zero": lambda m, s: wallet_bearer(m, bytes(32) + s[32:]),
    "s is zero": lambda m, s: wallet_bearer(m, s[:32] + bytes(32) + s[64:]),
    "a high s": lambda m, s: wallet_bearer(m, negated(s[:64] + bytes([s[64] - 27]))),
    "cut": lambda m, s: wallet_bearer(m, s[:-1]),
    "longer": lambda m, s: wallet_bearer(m, s + b"\0"),
}


@pytest.mark.parametrize("attack", SIWE_ATTACKS.values(), ids=SIWE_ATTACKS)
@in_one_loop
async def test_an_attack_on_a_wallet_bearer_gets_nowhere(
    stage: Stage, attack: Callable[[bytes, bytes], str], caplog: pytest.LogCaptureFixture
) -> None:
    message = account().message(await stage.nonce())
    answer = await stage.present(attack(message, account().personal_sign(message)))
    assert answer.status in (400, 401)
    assert answer.code in ("invalid_request", "invalid_token")
    assert answer.seen is None
    assert errors(caplog) == []
    # It was the attack that failed, not the message.
    assert (await stage.present(wallet_bearer(message, account().personal_sign(message)))).status == 200


@in_one_loop
async def test_the_gateways_own_signature_under_another_type_opens_nothing(stage: Stage) -> None:
    ours = [stage.form(f"{kind} EdDSA") for kind in ("dev", "wallet", "delegated")]
    for one, other in permutations(ours, 2):
        for token in (one.make({"typ": other.header["typ"]}), one.make({}, other.claims), other.make(one.header)):
            assert (await stage.present(token)).status == 401


DELEGATOR = Identity(user="alice", subject="alice", issuer="i", claims={}, scheme="oidc")


def everything() -> tuple[RememberingVerifier, list[str]]:
    """A verifier of every form that needs no issuer, and a good token of each; their time stands still."""
    clock = Clock()
    issuer = GatewayIssuer(Ed25519PrivateKey.generate())
    wanted = DIDSettings(audiences=(AUDIENCE,), login="open")
    store = MemoryOnce(clock)
    wallets = WalletVerifier(wanted, issuer, store, clock)
    ours: list[TrustedIssuer] = [LocalVerifier(issuer, clock), WalletTokenVerifier(wanted, issuer, clock)]
    delegation = Delegation(issuer, name=AUDIENCE, clock=clock)
    picker = TokenPicker(ours, dids=DIDVerifier(wanted, store, clock), wallets=wallets, delegation=delegation)
    now = int(clock())
    claims = {"iss": WALLET_ISSUER, "sub": account().did, "aud": WALLET_AUDIENCE, "iat": now, "exp": now + 600}
    people = [*(person(alg) for alg in KEY_CODES), account().person(), account().person("ES256K")]
    tokens = [
        *(somebody.token(clock=clock) for somebody in people),
        *(f"{somebody.did}.{somebody.token(clock=clock)}" for somebody in people),
        account().bearer(wallets.challenge()["nonce"], clock=clock),
        issuer.sign(WALLET_TYPE, claims),
        issuer.dev_token("dev", now=now),
        delegation.delegate(DELEGATOR, agent="planner", task="t1", session="5e55"),
    ]
    return RememberingVerifier(picker, clock), tokens


VERIFIER, TOKENS = everything()
SEGMENTS = st.one_of(
    st.binary(max_size=80).map(b64),
    st.text(max_size=20),
    st.dictionaries(st.text(max_size=5), st.integers()).map(lambda members: b64(json.dumps(members).encode())),
    st.sampled_from(TOKENS).flatmap(lambda token: st.sampled_from(token.split("."))),
)
LEADS = st.sampled_from(["", "siwe.", "did:", "did:key:z6Mk.", f"{person('EdDSA').did}.", f"{account().did}.", "."])


def opens(token: str) -> str | None:
    """The user that the token stands for; None if it is refused, as it should be, by an `AuthError`."""
    verifying = VERIFIER.verify(token)
    try:
        verifying.send(None)  # Nothing that it asks for has to be waited for, and a loop for each token costs more.
    except StopIteration as done:
        identity: Identity = done.value
        return identity.user
    except AuthError:
        return None
    raise AssertionError("it waits for something")


def test_every_token_that_is_fuzzed_is_good_to_begin_with() -> None:
    assert None not in [opens(token) for token in TOKENS]


@settings(max_examples=500, deadline=None)
@given(LEADS, st.lists(SEGMENTS, max_size=5))
def test_nothing_but_its_own_error_comes_out_of_the_verifier_for_any_segments(lead: str, segments: list[str]) -> None:
    token = lead + ".".join(segments)
    assert opens(token) is None or token in TOKENS


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(TOKENS), st.integers(0, 2000), st.text(max_size=3), st.integers(0, 3))
def test_nothing_but_its_own_error_comes_out_of_the_verifier_for_a_touched_token(
    token: str, place: int, new: str, cut: int
) -> None:
    touched = token[: place % len(token)] + new + token[place % len(token) + cut :]
    assert opens(touched) is None or touched in TOKENS


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200).map(lambda raw: raw.decode("latin-1")))
def test_nothing_but_its_own_error_comes_out_of_the_verifier_for_any_bytes(token: str) -> None:
    assert opens(token) is None

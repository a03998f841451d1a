# ruff: noqa: RUF001 - words of every script
"""Secrets are taken out before anything is kept: the known shapes, in linear time, and nothing else."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import random
import string
import time
from types import MappingProxyType

import pytest

from mem import Redactor
from mem.cleaning import Cleaner, compact
from mem.memory import _at_ease
from mem.redact import at_once

_LOT = random.Random(5)


def drawn(length: int, alphabet: str = string.ascii_letters + string.digits) -> str:
    """Text by lot, with a digit, a capital and a small letter in it where the alphabet has them."""
    while True:
        text = "".join(_LOT.choices(alphabet, k=length))
        kinds = (str.isdigit, str.isupper, str.islower)
        if all(any(map(kind, text)) or not any(map(kind, alphabet)) for kind in kinds):
            return text


HEX = "0123456789abcdef"
UPPER = string.ascii_uppercase + string.digits
URL_SAFE = string.ascii_letters + string.digits + "-_"
BASE64 = string.ascii_letters + string.digits + "+/"


def jwt() -> str:
    return f"eyJ{drawn(30)}.eyJ{drawn(80)}.{drawn(43)}"


def pem(kind: str, lines: int = 8, newline: str = "\n") -> str:
    body = newline.join(drawn(64, BASE64) for _ in range(lines))
    return f"-----BEGIN {kind}-----{newline}{body}{newline}-----END {kind}-----"


# What is to go, and what stands around it. `{}` is the secret's place.
SECRETS: dict[str, tuple[str, str]] = {
    "bearer header": ("Authorization: Bearer {}", drawn(40)),
    "bearer lower case": ("use bearer {} please", drawn(24)),
    "bearer in curl": ("curl -H 'Authorization: Bearer {}' http://x/", drawn(32, URL_SAFE)),
    "basic header": ("Authorization: Basic {}", drawn(28, BASE64)),
    "basic header in json": ('{{"Authorization": "Basic {}"}}', drawn(28, BASE64)),
    "x-api-key header": ("x-api-key: {}", drawn(32)),
    "X-API-Key in json": ('{{"X-API-Key": "{}"}}', drawn(32)),
    "jwt": ("token={} end", jwt()),
    "jwt after a word": ("my token is {}.", jwt()),
    "jwe": ("{}", f"eyJ{drawn(30)}.{drawn(30)}.{drawn(16)}.{drawn(60)}.{drawn(22)}"),
    "rsa key": ("here:\n{}\nthat is it", pem("RSA PRIVATE KEY")),
    "pkcs8 key": ("{}", pem("PRIVATE KEY")),
    "encrypted key": ("{}", pem("ENCRYPTED PRIVATE KEY")),
    "openssh key": ("{}", pem("OPENSSH PRIVATE KEY", 30)),
    "key in a json string": ('{{"k": "{}"}}', pem("EC PRIVATE KEY", newline="\\n")),
    "key without its end": ("{}", pem("PRIVATE KEY").partition("\n-----END")[0]),
    "pgp key": ("{}", pem("PGP PRIVATE KEY BLOCK")),
    "age key": ("key {}", "AGE-SECRET-KEY-1" + drawn(58, UPPER)),
    "password in a url": ("postgresql://app:{}@db.example/app", "hunter2!"),
    "password in a url without a user": ("redis://:{}@cache:6379/0", "pa55"),
    "password with an at sign": ("ftp://me:{}@host/", "p@ss"),
    "token in a query": ("https://x.example/hook?id=1&access_token={}&b=2", drawn(20)),
    "password in a query": ("https://x.example/?password={}", "correct-horse"),
    "signed url": ("https://s3.example/a?X-Amz-Signature={}", drawn(64, HEX)),
    "openai": ("OPENAI_API_KEY={}", f"sk-{drawn(48)}"),
    "openai project": ("{}", f"sk-proj-{drawn(60, URL_SAFE)}"),
    "anthropic": ("key: {},", f"sk-ant-api03-{drawn(90, URL_SAFE)}"),
    "openrouter": ("{}", f"sk-or-v1-{drawn(64, HEX)}"),
    "github": ("git clone with {}", f"ghp_{drawn(36)}"),
    "github server": ("{}", f"ghs_{drawn(36)}"),
    "github fine-grained": ("{}", f"github_pat_{drawn(22)}_{drawn(59)}"),
    "gitlab": ("{}", f"glpat-{drawn(20, URL_SAFE)}"),
    "slack bot": ("{}", f"xoxb-{drawn(12, string.digits)}-{drawn(12, string.digits)}-{drawn(24)}"),
    "slack hook": ("https://hooks.slack.com/services/T0ABCDEF1/B0ABCDEF2/{}", drawn(24)),
    "aws id": ("aws {} x", f"AKIA{drawn(16, UPPER)}"),
    "aws secret": ("aws_secret_access_key = {}", drawn(40, BASE64)),
    "aws secret in json": ('"SecretAccessKey": "{}"', drawn(40, BASE64)),
    "google": ("https://maps.example/{}", f"AIza{drawn(35, URL_SAFE)}"),
    "google oauth": ("{}", f"ya29.{drawn(60, URL_SAFE)}"),
    "hugging face": ("HF_TOKEN={}", f"hf_{drawn(34)}"),
    "npm": ("//registry/:_authToken={}", f"npm_{drawn(36)}"),
    "pypi": ("{}", f"pypi-AgEIcHlwaS5vcmc{drawn(80, URL_SAFE)}"),
    "sendgrid": ("{}", f"SG.{drawn(22, URL_SAFE)}.{drawn(43, URL_SAFE)}"),
    "stripe": ("{}", f"sk_live_{drawn(24)}"),
    "stripe hook": ("{}", f"whsec_{drawn(32)}"),
    "digitalocean": ("{}", f"dop_v1_{drawn(64, HEX)}"),
    "groq": ("{}", f"gsk_{drawn(52)}"),
    "vault": ("{}", f"hvs.{drawn(90, URL_SAFE)}"),
    "telegram": ("bot123456789:{}", f"AA{drawn(33, URL_SAFE)}"),
    "azure storage": ("AccountName=x;AccountKey={};", drawn(86, BASE64) + "=="),
    "visa": ("card {} please", "4111 1111 1111 1111"),
    "mastercard": ("card {}.", "5555-5555-5555-4444"),
    "amex": ("card {}, thanks", "378282246310005"),
    "a card without spaces": ("n={}", "4242424242424242"),
}

HARMLESS = {
    "prose": "The quick brown fox jumps over the lazy dog, and the bearer of bad news sighs.",
    "bearer of": "She was the bearer of responsibilities-and-consequences.",
    "bearer tokens": "Send a bearer token: Authorization: Bearer <token>",
    "basic": "Basic understanding of authentication is needed for this task.",
    "sk learn": "from sk-learn-toggleable-content-labels import nothing",
    "css class": '<div class="sk-toggleable__content-arrow sk-estimator">',
    "task names": "task-force-on-renewable-energy-and-climate and risk-averse-investors-everywhere",
    "uuid": "550e8400-e29b-41d4-a716-446655440000",
    "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "git sha": "commit 9fceb02d0ae598e95dc970b74767f19372d61af8",
    "git range": "git diff 9fceb02d0ae598e95dc970b74767f19372d61af8..HEAD~3",
    "public key": "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQ\n-----END PUBLIC KEY-----",
    "certificate": "-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIU\n-----END CERTIFICATE-----",
    "ssh public key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl me@host",
    "dashes": "----- BEGIN of the private key chapter -----",
    "url": "https://example.com:8443/path/to?page=2&sort=name#top",
    "url with a user": "ssh://git@github.com/owner/repository.git",
    "url with a port": "http://localhost:11434/api/chat and mail@example.com",
    "url and a mail": "see http://example.com:80/ or write to me@example.com",
    "time": "at 12:30:45, 2026-11-22T04:00:00Z, 1763784530123",
    "timestamp": "seen at 1763784530 and 1763784530123456",
    "phone": "+49 30 1234 5678, (555) 123-4567",
    "iban": "DE89 3704 0044 0532 0130 00",
    "isbn": "978-3-16-148410-0",
    "wrong card": "4111 1111 1111 1112",
    "zeros": "0000 0000 0000 0000",
    "ones": "4444444444444444444444444",
    "decimals": "3.14159265358979323846 and 0.4111111111111111",
    "long number": "12345678901234567890123456789012345678901234567890",
    "hex number": "0x4111111111111111",
    "eyj": "eyJ is how base64 of a brace begins",
    "eyj in a word": "heyJude.dontmakeit.badtakeasadsongandmakeitbetter",
    "dotted name": "com.example.project.subsystem.component.Implementation",
    "python": "password = os.environ['DATABASE_PASSWORD']",
    "placeholder": "export OPENAI_API_KEY=sk-...",
    "placeholder in words": "sk-your-api-key-goes-here-please",
    "yaml": "token: ${{ secrets.GITHUB_TOKEN }}",
    "query": "https://example.com/search?q=how+to+reset+password&lang=en&key=1",
    "email": "write to alice@example.com about it",
    "akia": "AKIA is how ids of AWS begin, AKIAlong and ASIAN are not",
    "npm": "npm_config_registry=https://registry.example and npm_lifecycle_event",
    "hf": "hf_hub_download(repo_id='x', filename='y')",
    "version": "xoxb is a prefix; v1.2.3-beta.4+build.5678",
    "chinese": "密码是什么？请告诉我更多关于身份验证的信息。",
    "code": "for i in range(100000000000): x = a[i] ** 2 % 1000000007",
    "base64 image head": "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk",
    "did": "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK",
    "ethereum": "0x52908400098527886E0F7030069857D2E4169EE7",
    "mac": "00:1A:2B:3C:4D:5E and fe80::1ff:fe23:4567:890a",
    "model": "meta-llama/Llama-3.3-70B-Instruct-GPTQ-Int4-128g-actorder_True",
    "regex": r"^(?:[a-z0-9!#$%&'*+/=?^_`{|}~-]+)@(?:[a-z0-9-]+\.)+[a-z]{2,}$",
    "authorization prose": "Authorization: see RFC 6750 for how tokens are sent",
    "key prose": "the API key: you find it in your settings under keys",
}


def test_there_are_fifty_of_each() -> None:
    assert len(SECRETS) >= 50
    assert len(HARMLESS) >= 50


@pytest.mark.parametrize(("around", "secret"), SECRETS.values(), ids=SECRETS)
def test_a_secret_goes_and_what_is_around_it_stays(around: str, secret: str) -> None:
    redacted = Redactor().redact(around.format(secret))
    assert secret not in redacted
    before, _, after = around.format("\0").partition("\0")
    assert redacted.startswith(before)
    assert redacted.endswith(after)
    middle = redacted[len(before) : len(redacted) - len(after)]
    assert middle.startswith("[redacted:")
    assert middle.endswith("]")
    assert middle.count("[") == 1


@pytest.mark.parametrize("text", HARMLESS.values(), ids=HARMLESS)
def test_what_is_no_secret_stays(text: str) -> None:
    assert Redactor().redact(text) == text


HEADERS = ("Authorization", "UTHORIZATION", "uthorization", "Bearer", "bearer", "Basic", "x-api-key", "uth-token")
SIGNS = ("://", "?key=", "&sig=", "?", "&", ":", "=", " : ", " = ", '"', " ", "\u00a0", "\t", "-----BEGIN ", "@")
NUMBERS = ("4111 1111 1111 1111", "4111", "3782 822463 10005", "sk-", "AKIA", "eyJ", "key-", ":AA", "SG.", "ä", "漢")
COUNTED = "12 345 67 890 "


@pytest.mark.parametrize("mail", [False, True], ids=["addresses stay", "addresses go"])
def test_what_a_glance_takes_for_harmless_is(mail: bool) -> None:
    redactor, lot, known = Redactor(mail=mail), random.Random(7), (*HEADERS, *SIGNS, *NUMBERS, COUNTED)
    harmless = 0
    for _ in range(20_000):
        text = "".join(lot.choice([*known, drawn(3), drawn(6), drawn(8)]) for _ in range(lot.randint(1, 7)))
        if redactor.is_harmless(text):
            harmless += 1
            assert at_once(redactor.steps(text)) == text
    assert harmless > 1000


def test_addresses_go_where_that_is_asked() -> None:
    text = "from Alice.B+x@mail.example.com, to bob@x.org; not @home, a@b or user@host"
    assert Redactor(mail=True).redact(text) == "from [redacted:email], to [redacted:email]; not @home, a@b or user@host"


@pytest.mark.parametrize("length", [1, 7, 64, 1000])
def test_it_does_not_matter_where_a_slice_ends(length: int) -> None:
    texts = [around.format(secret) for around, secret in SECRETS.values()]
    text = " ; ".join([*texts, *HARMLESS.values()])
    assert Redactor(mail=True, slice_length=length).redact(text) == Redactor(mail=True, slice_length=10**9).redact(text)


HOSTILE = {
    "prefixes": "sk-",
    "jwt beginnings": "eyJ",
    "jwt segments": "eyJaaaaaaaaaaaa.",
    "key beginnings": "-----BEGIN PRIVATE KEY-----",
    "half beginnings": "-----BEGIN ",
    "dashes": "-",
    "urls": "://a:",
    "url passwords": "://a:b",
    "ats": "a@",
    "domains": "@a.",
    "digits": "4",
    "digits apart": "4 ",
    "groups": "4111 ",
    "queries": "?key=",
    "bearers": "Bearer ",
    "headers": "Authorization: Basic ",
    "aws": "AKIA",
    "telegram": "12345678:AA",
    "one token": "aA1",
    "long prose": "lorem ipsum dolor ",
}


@pytest.mark.parametrize("piece", HOSTILE.values(), ids=HOSTILE)
def test_a_megabyte_takes_no_more_than_its_share(piece: str) -> None:
    """Sixteen times the text may take sixteen times as long; what is quadratic takes 256 times."""
    redactor = Redactor(mail=True)

    def seconds(size: int) -> float:
        text = (piece * (size // len(piece) + 1))[:size]
        begun = time.process_time()
        redactor.redact(text)
        return time.process_time() - begun

    small = max(min(seconds(65_536) for _ in range(3)), 0.001)
    assert min(seconds(1_048_576) for _ in range(2)) < 16 * small * 6


async def test_the_loop_runs_on_while_a_large_text_is_redacted() -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    text = "nothing to see here " * 20_000
    assert await _at_ease(Redactor().steps(text)) == text
    counting.cancel()
    assert turns >= len(text) // (16 * 1024) - 1


def clean(value: object, *, keep_media: bool = False) -> object:
    return at_once(Cleaner(Redactor(), keep_media=keep_media).value(value))


def test_images_and_audio_are_known_again_and_not_kept() -> None:
    image = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
    content = base64.b64decode(image)
    digest = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    message = {
        "images": [image],
        "content": [
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}},
            {"type": "input_audio", "input_audio": {"data": image, "format": "wav"}},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": image}},
            {"type": "text", "text": "data: yes"},
        ],
    }
    cleaned = clean(message)
    assert cleaned == {
        "images": [digest],
        "content": [
            {"type": "image_url", "image_url": {"url": {**digest, "type": "image/png"}}},
            {"type": "input_audio", "input_audio": {"data": digest, "format": "wav"}},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": digest}},
            {"type": "text", "text": "data: yes"},
        ],
    }
    assert clean(message, keep_media=True) == message


def test_what_no_store_can_hold_is_made_so_that_it_can() -> None:
    deep: object = "x"
    for _ in range(200):
        deep = [deep]
    cleaned = clean({"a": "\ud800", "\udfff": 1, "n": float("nan"), "i": 10**400, "j": 2**70, "deep": deep})
    assert isinstance(cleaned, dict)
    assert (cleaned["a"], cleaned["?"], cleaned["n"], cleaned["i"], cleaned["j"]) == ("?", 1, None, None, float(2**70))
    assert "nested too deeply" in str(cleaned["deep"])


@pytest.mark.parametrize("keep_media", [False, True])
def test_a_message_kept_at_a_glance_is_the_same_in_steps(keep_media: bool) -> None:
    cleaner = Cleaner(Redactor(), keep_media=keep_media)
    texts: tuple[object, ...] = (
        *("", "hello", "".join(map(chr, range(128))), "naïve 漢", "half \ud800", "data:image/png;base64,aGk=", jwt()),
        *(
            f"password={drawn(20)}",
            drawn(200, BASE64),
            "4111 1111 1111 1111",
            None,
            True,
            1,
            10**30,
            1e16,
            [],
            {},
            ["a"],
        ),
    )
    for name in ("content", "data", "n\ud800", "é", 'a"b\n', ""):
        for text in texts:
            message = {"role": "user", name: text}
            at_a_glance = cleaner.body(message)
            assert at_a_glance in (None, compact(at_once(cleaner.value(message)))), message
    assert cleaner.body({"role": "user", "content": 'Why\t"so"?'}) == '{"role":"user","content":"Why\\t\\"so\\"?"}'
    assert cleaner.body({"role": "user", "content": "a", "name": "b"}) is None
    assert cleaner.body(MappingProxyType({"role": "user", "content": "a"})) is None

"""What secrets look like. Every pattern is tried only where one of its anchors stands, and then looks ahead once.

Linear time comes from how they are written: what repeats is possessive or bounded, and a run of characters is never
begun in its middle (look-behind), so that no text makes two attempts read the same characters more than a few times.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

_FREE = r"(?<![A-Za-z0-9_-])"  # A token begins here, not in the middle of a word.


@dataclass(frozen=True, slots=True)
class Secret:
    """One kind of secret.

    Attributes:
        kind: What stands in its place: `[redacted:kind]`.
        anchors: Texts of which one stands where `pattern` begins.
        pattern: Its first group, or all of it where it has none, is what is taken out.
        check: Whether a match is one indeed.
    """

    kind: str
    anchors: tuple[str, ...]
    pattern: re.Pattern[str]
    check: Callable[[str], bool] | None = None


def is_random(token: str) -> bool:
    """Whether a token looks drawn by lot: no word, no name with hyphens."""
    digits = sum(character.isdigit() for character in token)
    return digits >= 3 or (digits >= 1 and token.lower() != token and token.upper() != token)


def _has_digit(token: str) -> bool:
    return any(character.isdigit() for character in token)


def _is_signed(token: str) -> bool:
    parts = token.split(".")
    return len(parts) in (3, 5) and len(parts[0]) >= 13 and len(parts[-1]) >= 16


def _key(*anchors: str, rest: str, check: Callable[[str], bool] | None = None) -> Secret:
    """A key that begins with one of `anchors`; `rest` is what follows."""
    begin = "|".join(re.escape(anchor) for anchor in anchors)
    return Secret("api_key", anchors, re.compile(f"{_FREE}(?:{begin}){rest}"), check)


_END = r"(?![A-Za-z0-9])"
_ASSIGNED = r"""["']?\s{0,3}[:=]\s{0,3}["']?"""

SECRETS: tuple[Secret, ...] = (
    Secret(
        "private_key",
        ("-----BEGIN ",),
        re.compile(
            r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,10}-----"
            r"(?:[A-Za-z0-9+/=\s\\:,.()]|-(?!----))*+(?:-----END [A-Z0-9 ]{0,60}-----)?"
        ),
    ),
    _key("AGE-SECRET-KEY-1", rest=r"[0-9A-Z]{50,70}+"),
    # Signed and encrypted tokens (RFC 7515 §3.1, RFC 7516 §3.1).
    Secret(
        "token",
        ("eyJ",),
        re.compile(
            rf"{_FREE}eyJ[A-Za-z0-9_-]{{10,}}+\.[A-Za-z0-9_-]*+\.[A-Za-z0-9_-]++(?:\.[A-Za-z0-9_-]++\.[A-Za-z0-9_-]++)?+"
        ),
        _is_signed,
    ),
    Secret(
        "token",
        ("Bearer", "bearer", "BEARER"),
        re.compile(r"(?<![A-Za-z])[Bb](?:earer|EARER)[\s:]{1,3}([A-Za-z0-9._~+/=-]{16,}+)"),
        _has_digit,
    ),
    Secret(
        "token",
        ("uthorization", "UTHORIZATION"),
        re.compile(rf"(?:uthorization|UTHORIZATION){_ASSIGNED}[A-Za-z-]{{3,12}}\s{{1,3}}([^\s\"',;]{{8,}}+)"),
    ),
    Secret(
        "token",
        ("pi-key", "pi-Key", "PI-KEY", "PI-Key", "uth-token", "uth-Token"),
        re.compile(rf"(?:pi-[kK]ey|PI-K(?:EY|ey)|uth-[tT]oken){_ASSIGNED}([A-Za-z0-9._~+/=-]{{16,}}+)"),
        _has_digit,
    ),
    Secret(
        "password",
        ("://",),
        re.compile(r"""://[^\s/?#@:"'<>]{0,256}:([^\s/?#"'<>]{1,512})@"""),
    ),
    Secret(
        "password",
        ("?", "&"),
        re.compile(
            r"[?&](?:pass(?:word|wd|phrase)?|pwd|(?:client_)?secret|access_token|refresh_token|id_token|auth_token|token"
            r"|api_?-?key|apikey|key|sig|signature|X-Amz-(?:Signature|Security-Token))=([^&\s#\"'<>]{6,}+)"
        ),
    ),
    _key("sk-", "csk-", "rk-", rest=r"[A-Za-z0-9_-]{20,}+", check=is_random),
    _key("ghp_", "gho_", "ghu_", "ghs_", "ghr_", rest=r"[A-Za-z0-9]{36,}+"),
    _key("github_pat_", rest=r"[A-Za-z0-9_]{40,}+"),
    _key("glpat-", "glrt-", "gldt-", "glptt-", rest=r"[A-Za-z0-9_.-]{20,}+", check=is_random),
    _key("xoxb-", "xoxp-", "xoxa-", "xoxr-", "xoxs-", "xoxe.", "xapp-", rest=r"[A-Za-z0-9.-]{20,}+", check=is_random),
    Secret(
        "api_key",
        ("hooks.slack.com/services/",),
        re.compile(r"hooks\.slack\.com/services/T[A-Z0-9]{5,20}/B[A-Z0-9]{5,20}/([A-Za-z0-9]{20,}+)"),
    ),
    _key("AKIA", "ASIA", "ABIA", "ACCA", rest=rf"[A-Z0-9]{{16}}{_END}"),
    Secret(
        "api_key",
        ("cret_access_key", "CRET_ACCESS_KEY", "cretAccessKey"),
        re.compile(
            rf"cret(?:_a|A)ccess(?:_k|K)ey{_ASSIGNED}([A-Za-z0-9/+]{{40}}+)|CRET_ACCESS_KEY{_ASSIGNED}([A-Za-z0-9/+]{{40}}+)"
        ),
    ),
    _key("AIza", rest=r"[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])"),
    _key("ya29.", rest=r"[A-Za-z0-9_-]{20,}+"),
    _key("GOCSPX-", rest=r"[A-Za-z0-9_-]{24,}+"),
    _key("hf_", "api_org_", rest=r"[A-Za-z0-9]{30,}+"),
    _key("npm_", rest=rf"[A-Za-z0-9]{{36}}{_END}"),
    _key("pypi-AgE", rest=r"[A-Za-z0-9_-]{50,}+"),
    _key("rubygems_", rest=r"[0-9a-f]{48}"),
    _key("dckr_pat_", "figd_", "sntrys_", "sntryu_", rest=r"[A-Za-z0-9_=+/-]{20,}+", check=is_random),
    _key("SG.", rest=r"[A-Za-z0-9_-]{20,24}+\.[A-Za-z0-9_-]{39,50}+"),
    _key("key-", rest=rf"[0-9a-f]{{32}}{_END}"),
    _key("sk_live_", "sk_test_", "rk_live_", "rk_test_", "pk_live_", rest=r"[A-Za-z0-9]{16,}+", check=_has_digit),
    _key("whsec_", rest=r"[A-Za-z0-9+/]{24,}+={0,2}"),
    _key("dop_v1_", "doo_v1_", "dor_v1_", rest=r"[0-9a-f]{64}"),
    _key("dapi", rest=rf"[0-9a-f]{{32}}(?:-\d)?{_END}"),
    _key("gsk_", "xai-", "pplx-", "nvapi-", "tvly-", "fw_", "r8_", rest=r"[A-Za-z0-9_-]{22,}+", check=is_random),
    _key("pcsk_", "lsv2_pt_", "lsv2_sk_", "jina_", rest=r"[A-Za-z0-9_]{30,}+", check=is_random),
    _key("hvs.", "hvb.", rest=r"[A-Za-z0-9_-]{24,}+"),
    _key("shpat_", "shpss_", "shpca_", "shppa_", rest=r"[0-9a-fA-F]{32}"),
    _key("lin_api_", "ntn_", rest=r"[A-Za-z0-9]{40,}+"),
    _key("sbp_", rest=r"[0-9a-f]{40}"),
    _key("glsa_", "glc_", rest=r"[A-Za-z0-9+/=_-]{32,}+"),
    _key("sq0atp-", "sq0csp-", rest=r"[A-Za-z0-9_-]{22,}+"),
    _key("PMAK-", "tskey-", "dp.pt.", rest=r"[A-Za-z0-9-]{24,}+", check=is_random),
    Secret(
        "api_key",
        (":AA",),  # Telegram's bots: their number, a colon, 35 characters.
        re.compile(r"(?<=\d\d\d\d\d\d\d\d):(AA[A-Za-z0-9_-]{33})(?![A-Za-z0-9_-])"),
    ),
    Secret(
        "api_key",
        ("AccountKey=", "SharedAccessKey="),
        re.compile(r"(?:Account|SharedAccess)Key=([A-Za-z0-9+/]{40,}+={0,2})"),
    ),
)

# Numbers of payment cards, in the groups that people write: their first digits are checked, and the last (ISO 7812).
CARD = re.compile(
    r"[2-6]\d{3}(?:([ -]?)\d{4}\1\d{4}\1\d{4}(?:\1\d{3})?|([ -]?)\d{6}\2\d{4,5})(?![\w-])(?!\.\d)",
    re.ASCII,
)
_ISSUERS = re.compile(
    r"4|5[1-5]|2(?:22[1-9]|2[3-9]|[3-6]|7[01]|720)|3[47]|35(?:2[89]|[3-8])|3(?:0[0-5]|[68])|6(?:011|4[4-9]|5|2)"
)


def is_card(number: str) -> bool:
    """Whether the digits in `number` can be a card's."""
    digits = [int(character) for character in number if character.isdigit()]
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])
    plausible = _ISSUERS.match("".join(map(str, digits))) is not None and len(set(digits)) > 1
    return plausible and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


MAIL_NAME = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._%+-")
MAIL_DOMAIN = re.compile(r"@[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}\.){1,4}[A-Za-z]{2,24}(?![A-Za-z0-9])")

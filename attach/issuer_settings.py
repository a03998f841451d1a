"""Whose tokens are accepted: `OIDC_ISSUER`, and `OIDC_ISSUERS` beside it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from auth import OIDCSettings

from .environment import Environment
from .exchange_settings import descope_issuer, descope_jwks_url

_LISTS = ("aliases", "audiences", "algorithms")
_TEXTS = ("issuer", "jwks_url", "required_typ", "user_claim", "user_prefix", "scopes_claim")
_SWITCHES = ("accept_id_tokens",)
_MEMBER_OF = {
    "OIDC_ISSUER": "issuer",
    "OIDC_AUD": "audiences",
    "OIDC_JWKS_URL": "jwks_url",
    "OIDC_ALGORITHMS": "algorithms",
}
_MEND = "give it as in docs/configuration.md"
_NOBODY = OIDCSettings(issuer="https://unset.invalid", audiences=("unset",))


def issuer_settings(environment: Environment, *, needed: bool = True) -> tuple[OIDCSettings, ...]:
    """Every issuer, that of `OIDC_ISSUER` first; what is wrong with them becomes faults.

    Only the users of `OIDC_ISSUER` go by their bare names. Everybody else's name begins with that of the issuer, so
    that it does not matter who comes first, and no issuer can name another one's user. Where none is `needed`, because
    there is another way to sign in, there may be none.
    """
    entries = _entries(environment)
    descope = descope_issuer(environment, _defaults(environment))
    main = _short_form(environment, asked_for=needed and not entries and descope is None)
    found = [main] if main else []
    for number, members in enumerate(entries, 1):
        entry = _entry(environment, number, members, main)
        if entry is not None and main is not None and entry.issuer == main.issuer:
            found[0] = entry
        elif entry is not None:
            found.append(entry)
    if descope is not None and not any(descope.names & issuer.names for issuer in found):
        found.append(descope)
        for sentence in descope.faults():
            environment.fault("DESCOPE_BASE_URL", f"leads nowhere: {sentence}", _MEND)
    _tell_apart(environment, found)
    return tuple(
        replace(
            issuer, reserved_prefixes=("did:", *(o.user_prefix for o in found if o is not issuer and o.user_prefix))
        )
        for issuer in found
    )


def _short_form(environment: Environment, *, asked_for: bool) -> OIDCSettings | None:
    """The issuer of `OIDC_ISSUER`. With `asked_for` it is a fault that there is none."""
    issuer = environment.optional("OIDC_ISSUER")
    defaults = _defaults(environment)
    if issuer is None and asked_for:
        environment.fault("OIDC_ISSUER", "is missing", "set it to your issuer, such as https://example.eu.auth0.com/")
    if not defaults.audiences and (issuer is not None or asked_for):
        environment.fault("OIDC_AUD", "is missing", "set it to the audience that your tokens are issued for")
    if issuer is None and not asked_for:
        return None
    settings = replace(
        defaults,
        issuer=issuer or _NOBODY.issuer,
        audiences=defaults.audiences or _NOBODY.audiences,
        jwks_url=environment.optional("OIDC_JWKS_URL") or _backend_jwks_url(environment),
    )
    for sentence in settings.faults():
        name, _, problem = sentence.partition(" ")
        environment.fault(name, problem, _MEND)
    return settings


def _backend_jwks_url(environment: Environment) -> str | None:
    descope = environment.text("AUTH_BACKEND").lower() == "descope" and environment.optional("DESCOPE_PROJECT_ID")
    return descope_jwks_url(environment) if descope else None


def _defaults(environment: Environment) -> OIDCSettings:
    """What holds for every issuer that says nothing else."""
    public_url = environment.url("PUBLIC_URL")
    return replace(
        _NOBODY,
        audiences=environment.words("OIDC_AUD") + _both_slash_forms(public_url),
        resource=public_url,
        algorithms=environment.words("OIDC_ALGORITHMS"),
        allow_http=environment.flag("OIDC_ALLOW_HTTP"),
    )


def _both_slash_forms(url: str | None) -> tuple[str, ...]:
    """Clients that make an audience of a URL do not agree on its final slash."""
    return () if url is None else (url.rstrip("/"), url.rstrip("/") + "/")


def _entries(environment: Environment) -> list[Mapping[str, Any]]:
    """The members of the list that `OIDC_ISSUERS` is, or that is in the file it names."""
    text = environment.optional("OIDC_ISSUERS")
    if text is None:
        return []
    try:
        entries = json.loads(text if text.startswith("[") else Path(text).expanduser().read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        environment.fault("OIDC_ISSUERS", "is not JSON", "give a list of objects, [{...}], or a file with one")
        return []
    except (OSError, RuntimeError):
        environment.fault("OIDC_ISSUERS", "names a file that cannot be read", "give a JSON list, or a file with one")
        return []
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        environment.fault("OIDC_ISSUERS", "is not a list of objects", _MEND)
        return []
    return entries


def _entry(
    environment: Environment, number: int, members: Mapping[str, Any], main: OIDCSettings | None
) -> OIDCSettings | None:
    """One issuer of the list; None after a fault."""
    problems = [problem for name, value in members.items() if (problem := _type_problem(name, value)) is not None]
    issuer = members.get("issuer")
    if issuer is None:
        problems.append("issuer is missing")
    if problems or not isinstance(issuer, str):
        for problem in problems:
            environment.fault("OIDC_ISSUERS", f"entry {number}: {problem}", _MEND)
        return None
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in members.items()
    }
    if main is not None and issuer == main.issuer:
        base = main
    else:
        base = replace(_defaults(environment), user_prefix=f"{issuer}|")
        if members.get("user_prefix") == "":
            mend = "name the one issuer whose users need none in OIDC_ISSUER"
            environment.fault("OIDC_ISSUERS", f"entry {number}: user_prefix is empty", mend)
    settings = replace(base, **given)
    for sentence in settings.faults():
        name, _, problem = sentence.partition(" ")
        environment.fault("OIDC_ISSUERS", f"entry {number}: {_MEMBER_OF.get(name, name)} {problem}", _MEND)
    return settings


def _type_problem(name: str, value: object) -> str | None:
    if name in _LISTS:
        fits = isinstance(value, list) and all(isinstance(word, str) for word in value)
        return None if fits else f"{name} must be a list of texts"
    if name in _TEXTS:
        return None if isinstance(value, str) else f"{name} must be a text"
    if name in _SWITCHES:
        return None if isinstance(value, bool) else f"{name} must be true or false"
    return f"{name!r} is not known: choose from {', '.join((*_TEXTS, *_LISTS, *_SWITCHES))}"


def _tell_apart(environment: Environment, issuers: Sequence[OIDCSettings]) -> None:
    """Fault what would make two issuers one, or let them name the same user."""
    for place, one in enumerate(issuers):
        for other in issuers[place + 1 :]:
            if shared := one.names & other.names:
                problem = f"has two issuers that are called {min(shared)}"
                environment.fault("OIDC_ISSUERS", problem, "give each its own name and aliases")
            first, second = one.user_prefix.lower(), other.user_prefix.lower()
            if first and second and (first.startswith(second) or second.startswith(first)):
                problem = (
                    f"has user_prefix {one.user_prefix!r} and {other.user_prefix!r}, one of which begins the other"
                )
                environment.fault("OIDC_ISSUERS", problem, "give prefixes of which none begins another")

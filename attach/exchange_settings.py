"""Whose tokens are traded for one that is accepted here, and where."""

from collections.abc import Sequence
from dataclasses import replace

from auth import ExchangeSettings, OIDCSettings

from .environment import Environment


def descope_issuer(environment: Environment, defaults: OIDCSettings) -> OIDCSettings | None:
    """The issuer of what Descope's exchange gives back; None where that is off."""
    if not environment.flag("ENABLE_DESCOPE_EXCHANGE"):
        return None
    issuer = f"{_base(environment)}/v1/apps/{_required(environment, 'DESCOPE_PROJECT_ID')}"
    return replace(
        defaults,
        issuer=issuer,
        audiences=environment.words("DESCOPE_AUD") or defaults.audiences,
        jwks_url=descope_jwks_url(environment),
        user_prefix=f"{issuer}|",
    )


def descope_jwks_url(environment: Environment) -> str:
    """Where Descope has a project's keys."""
    project = environment.text("DESCOPE_PROJECT_ID")
    return environment.url("DESCOPE_JWKS_URL") or f"{_base(environment)}/{project}/.well-known/jwks.json"


def exchange_settings(environment: Environment, issuers: Sequence[OIDCSettings]) -> ExchangeSettings | None:
    """The exchange, if there is one; what is wrong with it becomes faults."""
    url, descope = environment.url("EXCHANGE_URL"), environment.flag("ENABLE_DESCOPE_EXCHANGE")
    if url is None and not descope:
        return None
    if url is not None and descope:
        environment.fault("EXCHANGE_URL", "is set beside ENABLE_DESCOPE_EXCHANGE", "keep one of them")
    prefix = "DESCOPE" if descope else "EXCHANGE"
    settings = ExchangeSettings(
        form="descope" if descope else "rfc8693",
        url=f"{_base(environment)}/oauth2/v1/apps/token" if descope else url or "",
        client_id=_required(environment, f"{prefix}_CLIENT_ID"),
        client_secret=_required(environment, f"{prefix}_CLIENT_SECRET"),
        subject_issuers=environment.words("EXCHANGE_ISSUERS"),
        result_issuer=_result(environment, issuers, descope),
        audience=environment.optional("EXCHANGE_AUDIENCE"),
    )
    _check(environment, settings, issuers)
    return settings


def _result(environment: Environment, issuers: Sequence[OIDCSettings], descope: bool) -> str:
    if descope:
        return f"{_base(environment)}/v1/apps/{environment.text('DESCOPE_PROJECT_ID')}"
    if not issuers:
        environment.fault("OIDC_ISSUER", "is missing", "set it to the issuer of the tokens that EXCHANGE_URL gives")
    return issuers[0].issuer if issuers else ""


def _check(environment: Environment, settings: ExchangeSettings, issuers: Sequence[OIDCSettings]) -> None:
    if not settings.subject_issuers:
        environment.fault("EXCHANGE_ISSUERS", "is missing", "list the issuers whose tokens are to be exchanged")
    for issuer in issuers:
        if shared := issuer.names & settings.names:
            problem = f"has {min(shared)}, whose tokens are accepted as they are"
            environment.fault("EXCHANGE_ISSUERS", problem, "list only issuers that are in no other setting")
    name = "DESCOPE_BASE_URL" if settings.form == "descope" else "EXCHANGE_URL"
    probe = OIDCSettings(issuer=settings.url or "https://unset.invalid", audiences=("unset",))
    allowed = environment.flag("OIDC_ALLOW_HTTP")
    for sentence in replace(probe, allow_http=allowed).faults():
        environment.fault(name, sentence.partition(" ")[2], "our credential goes there: give an https URL")


def _base(environment: Environment) -> str:
    return (environment.url("DESCOPE_BASE_URL") or "").rstrip("/")


def _required(environment: Environment, name: str) -> str:
    value = environment.credential(name)
    if value is None:
        environment.fault(name, "is missing", "the exchange needs it")
    return value or "unset"

"""How DIDs and wallets sign in, out of the environment."""

import re
from pathlib import Path
from typing import get_args

from auth import DIDLogin, DIDSettings, InvalidToken, resolve, wallet_extra_installed

from .environment import Environment

LOGINS: tuple[DIDLogin, ...] = get_args(DIDLogin)
MOST_LIST_BYTES = 4 * 1024 * 1024
_CHAIN = re.compile(r"0|[1-9][0-9]{0,17}")


def read_did_settings(environment: Environment, *, login: DIDLogin | None = None) -> DIDSettings:
    """Read everything about DIDs; `login` where it is not the environment's to say. Faults are noted there."""
    public_url = environment.url("PUBLIC_URL") or f"http://localhost:{environment.count('PORT', least=0, most=65535)}"
    chains = _chains(environment)
    settings = DIDSettings(
        audiences=(public_url, *environment.words("DID_AUD")),
        login=environment.choice("DID_LOGIN", LOGINS) if login is None else login,
        allow=_allowed(environment, chains),
        max_lifetime=environment.seconds("DID_MAX_LIFETIME"),
        chains=chains,
        once=environment.choice("DID_REPLAY", ("off", "once")) == "once",
    )
    for sentence in settings.faults():
        environment.fault(*sentence.split(" ", 1))
    return settings


def _chains(environment: Environment) -> frozenset[int]:
    words = environment.words("DID_CHAINS")
    for word in words:
        if _CHAIN.fullmatch(word) is None:
            environment.fault("DID_CHAINS", f"has {word!r}", "list chain ids as decimal numbers, such as 1,10")
    return frozenset(int(word) for word in words if _CHAIN.fullmatch(word))


def _allowed(environment: Environment, chains: frozenset[int]) -> frozenset[str]:
    """The DIDs that may sign in, each in its one spelling."""
    text = environment.text("DID_ALLOW")
    if text and not text.startswith("did:"):
        text = _read_list(environment, text)
    allowed = set()
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            continue
        for did in re.split(r"[\s,]+", line.strip()):
            if not did:
                continue
            try:
                allowed.add(resolve(did, chains=chains).did)
            except InvalidToken as refused:
                environment.fault("DID_ALLOW", f"has {did[:100]!r}", _mend(refused))
    return frozenset(allowed)


def _read_list(environment: Environment, path: str) -> str:
    try:
        with Path(path).expanduser().open("rb") as file:
            raw = file.read(MOST_LIST_BYTES + 1)
        if len(raw) > MOST_LIST_BYTES:
            raise ValueError("more than 4 MiB")
        return raw.decode("utf-8")
    except (OSError, RuntimeError, ValueError):
        environment.fault(
            "DID_ALLOW", f"is {path!r}, which is neither a DID nor a file that can be read", "list DIDs, or name a file"
        )
        return ""


def _mend(refused: InvalidToken) -> str:
    match refused.reason:
        case "wallet_extra":
            return "install it: pip install 'attach-dev[wallet]'"
        case "did_chain":
            return "add the account's chain id to DID_CHAINS"
    return str(refused)


def wallets_possible(settings: DIDSettings) -> bool:
    """Whether an account could sign in with a wallet."""
    return settings.possible and wallet_extra_installed()

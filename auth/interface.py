"""What every way of proving who calls has in common: the contract, its result, and its errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A caller whose token was verified in full.

    One `Identity` is shared by every request that brings the same token, so nobody may change it.

    Attributes:
        user: Who owns what this caller makes, and what `X-Attach-User` carries: printable ASCII, whole, and never
            the same for callers of two issuers.
        subject: The issuer's own name for the caller (`sub`).
        issuer: Who vouches for the caller.
        claims: Everything that was signed, read-only.
        scheme: How the caller proved it: "oidc", "did", "wallet", "dev" or "delegated".
        scopes: What the issuer allows the bearer to do. Empty where nobody but the caller himself could have said so.
        agents: Who acts for the user: the agent that calls, then the one that it has the task from, and so on. Empty
            where the user calls himself.
        session: The session that a delegated token belongs to, else None.
        task_id: The task that it belongs to, else None.
        events: Ids of the events in memory that were handed over with that task.
    """

    user: str
    subject: str
    issuer: str
    claims: Mapping[str, Any] = field(repr=False)
    scheme: str
    scopes: frozenset[str] = field(default=frozenset(), repr=False)
    agents: tuple[str, ...] = ()
    session: str | None = None
    task_id: str | None = None
    events: frozenset[str] = field(default=frozenset(), repr=False)

    @property
    def agent(self) -> str | None:
        """The agent that calls for the user; None where he calls himself."""
        return self.agents[0] if self.agents else None


class TokenVerifier(Protocol):
    """Who a bearer token stands for."""

    async def verify(self, token: str) -> Identity:
        """Verify `token` in full, or from memory of having done so.

        Raises:
            AuthError: And nothing else, whatever `token` holds.
        """
        ...


class AuthError(Exception):
    """Why a caller was not let in.

    `str()` is one fixed sentence that may be shown to the caller: it holds nothing of the token, of the keys, or of
    an exception. `reason` is a short stable code for logs and tests, and says more than the caller may hear.

    ```
    AuthError
        MissingCredentials   401, a challenge without `error` (RFC 6750 §3.1)
        InvalidRequest       400 invalid_request
        InvalidToken         401 invalid_token
        InsufficientScope    403 insufficient_scope
        NotAllowed           403 not_allowed
        NotDelegated         403 not_delegated
        TooManyAgents        403 too_many_agents
        IssuerUnavailable    503
        SignInUnavailable    503
    ```
    """

    sentence: ClassVar[str] = "The caller could not be identified."

    def __init__(self, reason: str) -> None:
        super().__init__(SENTENCES.get(reason, self.sentence))
        self.reason = reason


class MissingCredentials(AuthError):
    """No token was sent, or only one of a kind that is not taken here."""

    sentence = "A bearer token is needed."

    def __init__(self, reason: str = "missing") -> None:
        super().__init__(reason)


class InvalidRequest(AuthError):
    """The credentials cannot be read: two of them, or a malformed field."""

    sentence = "The credentials are malformed."


class InvalidToken(AuthError):
    """The token was read and is not accepted."""

    sentence = "The token is not valid."


class InsufficientScope(AuthError):
    """The token is good, but not for this.

    Attributes:
        scope: What would be enough, as a space-separated list (RFC 6750 §3).
    """

    sentence = "The token does not carry the scope that this needs."

    def __init__(self, scope: str) -> None:
        super().__init__("scope")
        self.scope = scope


class IssuerUnavailable(AuthError):
    """Nothing can be said about the token: the issuer's keys cannot be had at the moment.

    Attributes:
        retry_after: Seconds after which asking again makes sense.
    """

    sentence = "The keys of the token's issuer cannot be had at the moment."

    def __init__(self, retry_after: float) -> None:
        super().__init__("issuer_unavailable")
        self.retry_after = retry_after


class NotAllowed(AuthError):
    """The caller is who they say, but nobody let them in."""

    sentence = "This DID is verified but not allowed here: the operator can add it to DID_ALLOW."

    def __init__(self) -> None:
        super().__init__("not_allowed")


class NotDelegated(AuthError):
    """An agent asks for what only the user may do himself, or for what is none of its task's."""

    sentence = "An agent may not do this for a user."

    def __init__(self) -> None:
        super().__init__("not_delegated")


class TooManyAgents(AuthError):
    """A task was handed from agent to agent too often."""

    sentence = "This task was handed on too often."

    def __init__(self) -> None:
        super().__init__("too_many_agents")


class SignInUnavailable(AuthError):
    """Nothing can be said about the token: whether it was used before cannot be looked up at the moment."""

    sentence = "Sign-in is not possible at the moment: try again."

    def __init__(self) -> None:
        super().__init__("sign_in_unavailable")


# No quotation mark and no backslash: these go into `error_description` (RFC 6750 §3).
SENTENCES: Mapping[str, str] = MappingProxyType(
    {
        "audience": "The token is meant for another audience.",
        "bound": "The token is bound to a key that a bearer token cannot show.",
        "conflict": "More than one credential was sent.",
        "contract_wallet": "Contract wallets cannot sign in here yet: use the key of an ordinary account.",
        "did": "Sign-in with a DID is not enabled here.",
        "did_bare": "A DID alone proves nothing: send a token that its key signed.",
        "did_chain": "Accounts on this chain are not taken here.",
        "did_differs": "The token was issued by another DID than the one before it.",
        "did_key_agreement": "The key of this DID is for key agreement: it cannot sign.",
        "did_key_type": "The key of this DID cannot sign in: use Ed25519, secp256k1, P-256, P-384 or P-521.",
        "did_malformed": "The DID is malformed.",
        "did_method": "This DID method is not taken: use did:key, did:jwk or did:pkh:eip155.",
        "did_namespace": "Of did:pkh only eip155 accounts are taken; solana and others come later.",
        "did_private": "The DID contains a private key, which is public by now.",
        "did_rsa": "RSA keys in DIDs are not taken yet; they come later.",
        "did_small_order": "The key of this DID fits signatures that nobody made.",
        "did_web": "did:web is not taken yet; it comes later.",
        "domain": "The message is meant for another site.",
        "early": "The token is not valid yet.",
        "exchange": "The token could not be exchanged for one that is accepted here.",
        "expired": "The token has expired.",
        "id_token": "This is an ID token: send the access token that came with it.",
        "issuer": "The issuer of the token is not trusted here.",
        "lifetime": "The token must end, and soon: its lifetime is not accepted here.",
        "malformed": "The token is malformed.",
        "nonce": "The nonce is not from here, too old, or used already: get another one at /auth/nonce.",
        "replayed": "The token was used already.",
        "scheme": "The Authorization header must be: Bearer, a space, and the token.",
        "sign_in_body": "Send JSON with two members: message, and signature as 0x and hex digits.",
        "signature": "The signature of the token is not valid.",
        "too_large": "The token is too large.",
        "unknown_kid": "The key of the token is not known to its issuer.",
        "user": "The name in the token cannot be used here.",
        "wallet": "Sign-in with a wallet is not enabled here: the operator can allow accounts in DID_ALLOW.",
        "wallet_extra": "Sign-in with a wallet is not installed here.",
    }
)

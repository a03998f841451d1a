"""Which error is answered how: the one place that turns what happened into a status, a code and a sentence."""

from math import ceil

from a2a.faults import AgentFailed
from a2a.hop import CredentialUnavailable
from a2a.tasks import (
    InvalidTask,
    KeyConflict,
    TargetNotAllowed,
    TaskEnded,
    TaskError,
    TaskNotFound,
    TaskTooDeep,
    TaskTooLarge,
    TooManyTasks,
    WorkflowsDown,
)
from auth import (
    AuthError,
    InsufficientScope,
    InvalidRequest,
    InvalidToken,
    IssuerUnavailable,
    MissingCredentials,
    NotAllowed,
    NotDelegated,
    SignInUnavailable,
    TooManyAgents,
)
from mem import InvalidMemory, MemoryOff, MemoryTooLarge, MemoryUnavailable, NoSuchEvent
from middleware import ForeignHost, InvalidOption, MalformedPath, UnreadableEncoding, WebSocketRefused
from proxy import (
    ClientLeft,
    ExchangeEnded,
    GatewayStopping,
    Unsupported,
    UpstreamBroken,
    UpstreamBusy,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from store import DatabaseError
from usage import MeterUnavailable, PromptExceedsQuota, QuotaExceeded
from wire import Refusal

_REALM = 'Bearer realm="attach"'


def answer(exc: Exception) -> Refusal | None:
    """The refusal for one of our errors, or None if `exc` is a bug."""
    match exc:
        case AuthError():
            return _challenge(exc)
        case MalformedPath():
            return _refusal(400, "malformed_path", exc)
        case InvalidOption():
            return _refusal(400, "invalid_option", exc)
        case ForeignHost():
            return _refusal(403, "foreign_host", exc)
        case WebSocketRefused():
            # The client may go on in the other protocol at once: nothing of that is a request.
            return _refusal(403, "websocket_refused", exc, {"Connection": "close"})
        case UnreadableEncoding():
            return _refusal(415, "unreadable_encoding", exc, {"Accept-Encoding": "gzip, deflate, identity"})
        case QuotaExceeded(retry_after=seconds):
            wait = max(ceil(seconds), 1)
            return Refusal(
                status=429,
                code="quota_exceeded",
                detail=str(exc),
                headers={"Retry-After": str(wait)},
                extra={"retry_after": wait},
            )
        case PromptExceedsQuota():
            return _refusal(400, "prompt_exceeds_quota", exc)
        case MeterUnavailable():
            return _refusal(503, "quota_unavailable", exc, {"Retry-After": "1"})
        case MemoryOff():
            return _refusal(503, "memory_off", exc)
        case MemoryUnavailable(retry_after=seconds):
            return _refusal(503, "memory_unavailable", exc, {"Retry-After": str(ceil(seconds or 5))})
        case NoSuchEvent():
            return _refusal(404, "not_found", exc)
        case MemoryTooLarge():
            return _refusal(413, "too_large", exc)
        case InvalidMemory(fields=fields):
            listed = [{"field": name, "problem": problem} for name, problem in fields]
            return Refusal(status=422, code="invalid_input", detail=str(exc), extra={"fields": listed})
        case Unsupported():
            return _refusal(501, "not_supported", exc)
        case UpstreamUnreachable():
            return _refusal(502, "engine_unreachable", exc)
        case UpstreamBroken():
            return _refusal(502, "engine_broken", exc)
        case UpstreamBusy():
            return _refusal(503, "engine_busy", exc, {"Retry-After": "1"})
        case UpstreamTimeout():
            return _refusal(504, "engine_timeout", exc)
        case ExchangeEnded(refusal=refusal):
            return refusal
        case GatewayStopping():
            return Refusal(
                status=503,
                code="stopping",
                detail="The gateway is being stopped: send the request again.",
                headers={"Retry-After": "5", "Connection": "close"},
            )
        case AgentFailed(refusal=refusal):
            return refusal
        case TaskError():
            return _task_refusal(exc)
        case DatabaseError():
            detail = "Tasks cannot be kept or read at the moment: try again."
            return Refusal(status=503, code="tasks_unavailable", detail=detail, headers={"Retry-After": "1"})
        case CredentialUnavailable():
            detail = "The agent's credential cannot be had at the moment: try again."
            return Refusal(status=503, code="agent_credential_unavailable", detail=detail, headers={"Retry-After": "5"})
        case ClientLeft():
            return Refusal(status=499, code="client_left", detail="The client left before its answer was complete.")
    return None


def _task_refusal(exc: TaskError) -> Refusal | None:
    match exc:
        case InvalidTask():
            return _refusal(422, "invalid_task", exc)
        case TargetNotAllowed():
            return _refusal(403, "target_not_allowed", exc)
        case TaskNotFound():
            return _refusal(404, "task_not_found", exc)
        case KeyConflict():
            return _refusal(409, "idempotency_conflict", exc)
        case TaskEnded():
            return _refusal(409, "task_ended", exc)
        case TaskTooDeep():
            return _refusal(403, "task_too_deep", exc)
        case TaskTooLarge():
            return _refusal(413, "task_too_large", exc)
        case TooManyTasks():
            return _refusal(429, "too_many_tasks", exc, {"Retry-After": "5"})
        case WorkflowsDown():
            return _refusal(503, "workflows_unavailable", exc, {"Retry-After": "5"})
    return None


def _challenge(exc: AuthError) -> Refusal | None:
    """Status and challenge as RFC 6750 §3: no `error` where no credentials were sent."""
    match exc:
        case MissingCredentials():
            return _refusal(401, "missing_credentials", exc, {"WWW-Authenticate": _REALM})
        case InvalidRequest():
            return _refusal(400, "invalid_request", exc, {"WWW-Authenticate": _error("invalid_request", exc)})
        case InvalidToken():
            return _refusal(401, "invalid_token", exc, {"WWW-Authenticate": _error("invalid_token", exc)})
        case InsufficientScope(scope=scope):
            challenge = f'{_error("insufficient_scope", exc)}, scope="{scope}"'
            return _refusal(403, "insufficient_scope", exc, {"WWW-Authenticate": challenge})
        case NotAllowed():
            return _refusal(403, "not_allowed", exc, {"WWW-Authenticate": _REALM})
        case NotDelegated():
            return _refusal(403, "not_delegated", exc, {"WWW-Authenticate": _error("insufficient_scope", exc)})
        case TooManyAgents():
            return _refusal(403, "too_many_agents", exc)
        case SignInUnavailable():
            return _refusal(503, "sign_in_unavailable", exc, {"Retry-After": "1"})
        case IssuerUnavailable(retry_after=seconds):
            return _refusal(503, "issuer_unavailable", exc, {"Retry-After": str(ceil(seconds))})
    return None


def _error(code: str, exc: AuthError) -> str:
    return f'{_REALM}, error="{code}", error_description="{exc}"'


def _refusal(status: int, code: str, exc: Exception, headers: dict[str, str] | None = None) -> Refusal:
    return Refusal(status=status, code=code, detail=str(exc), headers=headers or {})

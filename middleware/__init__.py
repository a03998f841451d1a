"""What a request meets on its way in, and its answer on its way out: pure ASGI, `send` wrapped, never buffered."""

from .access_log import AccessLog, AccessLogMiddleware, LogFormat, new_request_id
from .agents import AgentMiddleware, Belongs, none_belongs
from .auth import AuthMiddleware
from .body import UnreadableEncoding
from .check import Check
from .cors import CORSMiddleware
from .errors import ErrorMiddleware, send_refusal
from .host import ForeignHost, LoopbackHostMiddleware, is_loopback_name
from .observe import ObserveMiddleware
from .observed import ObservedExchange
from .path import MalformedPath, PathMiddleware, canonical_path, loosest_path
from .quota import TokenQuotaMiddleware, rate_limit_fields
from .record import Recorder
from .scopes import ScopeMiddleware, ScopeRules
from .session import InvalidOption, SessionMiddleware, session_id
from .websocket import WebSocketMiddleware, WebSocketRefused

__all__ = [
    "AccessLog",
    "AccessLogMiddleware",
    "AgentMiddleware",
    "AuthMiddleware",
    "Belongs",
    "CORSMiddleware",
    "Check",
    "ErrorMiddleware",
    "ForeignHost",
    "InvalidOption",
    "LogFormat",
    "LoopbackHostMiddleware",
    "MalformedPath",
    "ObserveMiddleware",
    "ObservedExchange",
    "PathMiddleware",
    "Recorder",
    "ScopeMiddleware",
    "ScopeRules",
    "SessionMiddleware",
    "TokenQuotaMiddleware",
    "UnreadableEncoding",
    "WebSocketMiddleware",
    "WebSocketRefused",
    "canonical_path",
    "is_loopback_name",
    "loosest_path",
    "new_request_id",
    "none_belongs",
    "rate_limit_fields",
    "send_refusal",
    "session_id",
]

"""What a request meets on its way in, and its answer on its way out: pure ASGI, `send` wrapped, never buffered."""

from .access_log import AccessLog, AccessLogMiddleware, LogFormat
from .agents import AgentMiddleware, Belongs, none_belongs
from .auth import AuthMiddleware
from .cors import CORSMiddleware
from .errors import ErrorMiddleware, send_refusal
from .host import ForeignHost, LoopbackHostMiddleware, is_loopback_name
from .path import MalformedPath, PathMiddleware, canonical_path, loosest_path
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
    "ErrorMiddleware",
    "ForeignHost",
    "InvalidOption",
    "LogFormat",
    "LoopbackHostMiddleware",
    "MalformedPath",
    "PathMiddleware",
    "ScopeMiddleware",
    "ScopeRules",
    "SessionMiddleware",
    "WebSocketMiddleware",
    "WebSocketRefused",
    "canonical_path",
    "is_loopback_name",
    "loosest_path",
    "none_belongs",
    "send_refusal",
    "session_id",
]

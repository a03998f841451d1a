"""Attach Gateway: verified identity, streaming and metering in front of any model server or agent."""

from importlib import import_module
from typing import TYPE_CHECKING

from .version import __version__

if TYPE_CHECKING:
    from .faults import ConfigurationError, Fault
    from .gateway import create_app
    from .settings import DevSettings, ServerSettings, Settings
    from .start import settings_or_exit

__all__ = [
    "ConfigurationError",
    "DevSettings",
    "Fault",
    "ServerSettings",
    "Settings",
    "__version__",
    "create_app",
    "settings_or_exit",
]

_WHERE = {
    "ConfigurationError": ".faults",
    "DevSettings": ".settings",
    "Fault": ".faults",
    "ServerSettings": ".settings",
    "Settings": ".settings",
    "create_app": ".gateway",
    "settings_or_exit": ".start",
}


def __getattr__(name: str) -> object:
    """Imported when it is asked for: `attach-gateway --help` needs nothing of it."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    offered: object = getattr(import_module(_WHERE[name], __name__), name)
    globals()[name] = offered
    return offered

"""Attach Gateway: verified identity, streaming and metering in front of any model server or agent."""

from .faults import ConfigurationError, Fault
from .gateway import create_app
from .settings import DevSettings, ServerSettings, Settings
from .start import settings_or_exit
from .version import __version__

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

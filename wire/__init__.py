"""The engines' dialects as pure functions over bytes: no I/O, nothing kept between calls."""

from .field_names import folded_name
from .refusal import Refusal

__all__ = ["Refusal", "folded_name"]

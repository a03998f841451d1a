"""The engines' dialects as pure functions over bytes: no I/O, nothing kept between calls."""

from .refusal import Refusal

__all__ = ["Refusal"]

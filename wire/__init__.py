"""The engines' dialects as pure functions over bytes: no I/O, nothing kept between calls."""

from .answer import read_answer
from .capture import Capture
from .estimate import StreamEstimator
from .field_names import folded_name
from .last_frame import LastFrame, signs_of
from .paths import is_metered
from .reading import AnswerReading, Dialect, Media, Message, Operation, RequestReading, ToolCall
from .refusal import Refusal
from .request import read_question, read_request
from .stream_usage import UsageChunkFilter, ask_for_usage

__all__ = [
    "AnswerReading",
    "Capture",
    "Dialect",
    "LastFrame",
    "Media",
    "Message",
    "Operation",
    "Refusal",
    "RequestReading",
    "StreamEstimator",
    "ToolCall",
    "UsageChunkFilter",
    "ask_for_usage",
    "folded_name",
    "is_metered",
    "read_answer",
    "read_question",
    "read_request",
    "signs_of",
]

"""The bytes of a body, kept within limits; what is metered; tokens guessed while a stream runs."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.recordings import RECORDINGS, Recording
from wire import Capture, StreamEstimator, is_metered


@given(pieces=st.lists(st.binary(max_size=40), max_size=30), limit=st.integers(1, 300))
def test_all_is_kept_or_head_and_tail(pieces: list[bytes], limit: int) -> None:
    capture = Capture(limit)
    for piece in pieces:
        capture.add(piece)
    body = b"".join(pieces)
    assert capture.length == len(body)
    assert capture.truncated == (len(body) > limit)
    head, tail = limit - limit // 2, limit // 2
    cut = body[:head] + b"\n\n" + body[len(body) - tail :]
    assert capture.content() == (cut if len(body) > limit else body)


@pytest.mark.parametrize("size", [1, 2, 999, 4 << 20], ids=["bytes", "pairs", "pieces", "one piece"])
def test_a_capture_costs_little_more_than_its_limit(size: int) -> None:
    body = bytes(4 << 20 if size > 999 else 128 << 10)
    capture = Capture(32 << 10)
    tracemalloc.start()
    for start in range(0, len(body), size):
        capture.add(body[start : start + size])
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert capture.length == len(body)
    assert used < 2 * (32 << 10)


@pytest.mark.parametrize(
    ("method", "path", "metered"),
    [
        ("POST", "/api/chat", True),
        ("POST", "/v1/chat/completions", True),
        ("POST", "/v1/messages", True),
        ("POST", "/anything/else", True),
        ("PUT", "/v1/images/generations", True),
        ("BREW", "/v1/completions", True),
        ("GET", "/v1/models", False),
        ("DELETE", "/api/delete", False),
        *[("POST", f"/api/{name}", False) for name in ("pull", "push", "create", "copy", "show", "blobs/sha256:12")],
        *[
            ("POST", path, False)
            for path in ("/tokenize", "/v1/files", "/v1/files/f1/content", "/v1/messages/count_tokens")
        ],
        *[
            ("POST", path, False)
            for path in ("/mem/events", "/a2a/tasks/send", "/auth/siwe", "/v1/logs", "/usage", "/tasks/7")
        ],
        ("POST", "/api/pull/", False),
        ("POST", "/api/pullover", True),
        ("POST", "/memory", True),
        ("POST", "/v1/filesystem", True),
        ("POST", "/x/api/pull", True),
    ],
)
def test_every_request_is_metered_that_may_make_tokens(method: str, path: str, metered: bool) -> None:
    assert is_metered(method, path) is metered


@pytest.mark.parametrize(
    "recording",
    [
        one
        for one in RECORDINGS
        if one.is_stream
        and one.name.startswith(("llamacpp", "ollama"))
        and (one.reading.output_tokens or 0) > 5
        and not one.reading.tool_calls
    ],
    ids=lambda recording: recording.name,
)
@pytest.mark.parametrize("size", [None, 64, 100_000], ids=["by event", "64 bytes", "at once"])
def test_a_running_stream_is_guessed_within_a_factor_of_three(recording: Recording, size: int | None) -> None:
    body, end = recording.body, b"\n" if recording.name.endswith(".ndjson") else b"\n\n"
    pieces = [event + end for event in body.split(end) if event]
    if size is not None:
        pieces = [body[start : start + size] for start in range(0, len(body), size)]
    estimator = StreamEstimator(recording.path)
    guesses = [estimator.add(piece) for piece in pieces]
    assert guesses == sorted(guesses)
    real = recording.reading.output_tokens
    assert real is not None
    assert real / 3 <= guesses[-1] <= real * 3 + 20


def test_a_stream_of_several_tokens_a_frame_is_not_taken_for_one_token_each() -> None:
    estimator = StreamEstimator("/v1/chat/completions")
    frame = b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n'
    estimator.add(frame % b"a")
    for _ in range(10):
        guess = estimator.add(frame % (b"four" * 100))
    assert 900 <= guess <= 1_100


def test_what_makes_no_tokens_as_it_runs_is_not_guessed() -> None:
    for path in ("/v1/embeddings", "/v1/chat/completions", "/api/embed"):
        assert StreamEstimator(path).add(b"0.123, " * 10_000) == 0
    assert StreamEstimator("/unknown").add(b"word" * 100) == 100

"""Token counts for streams whose client did not ask for them: asked for on the way up, taken out on the way down."""


def ask_for_usage(path: str, body: bytes) -> bytes | None:
    """The body with `stream_options.include_usage` set, otherwise to the byte as it was.

    None where nothing is to be done: no stream of OpenAI's chat or completions, or the client itself set it.
    """
    return None


class UsageChunkFilter:
    """Takes the chunk that only tells the usage out of a stream of server-sent events; the rest passes byte for byte.

    `feed` gives back what may go on at once: an event that is not whole yet is held.
    """

    def feed(self, piece: bytes) -> bytes:
        return piece

    def end(self) -> bytes:
        """What was still held when the stream ended."""
        return b""

"""Whatever a server says, and however it is cut: an answer or an httpx error, soon, and nothing left behind."""

import asyncio
from itertools import pairwise

import h11
import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from proxy.framing import FieldNames
from proxy.response_head import HeadLimits, HeadParser
from proxy.response_reader import ResponseReader
from tests.servers import Connection
from tests.transport.peers import RawServer, fetch, open_transport
from tests.transport.test_conformance import HONEST, UNTIL_CLOSE
from tests.transport.test_hostile import EXCESS, HOSTILE

SEEDS = [*HONEST.values(), *UNTIL_CLOSE.values(), *(case.response for case in HOSTILE.values())] + [
    response for response, _ in EXCESS.values()
]
PARTS = [
    *(b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 ", b"100", b"101", b"204", b"304"),
    *(
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n",
        b"X: y\r\n",
        b" folded\r\n",
    ),
    *(b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b"\xff", b"hello"),
    *(b"5\r\nhello\r\n", b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b";a=b"),
]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A response of the suite with parts taken out, put in twice, or replaced."""
    response = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(0, 3))):
        begin = draw(st.integers(0, len(response)))
        end = draw(st.integers(begin, min(len(response), begin + 12)))
        insert = draw(st.sampled_from(PARTS) | st.binary(max_size=4) | st.just(response[begin:end] * 2))
        response = response[:begin] + insert + response[end:]
    return response


RESPONSES = mutated() | st.binary(max_size=60) | st.lists(st.sampled_from(PARTS), max_size=12).map(b"".join)
CUTS = st.lists(st.integers(0, 200), max_size=6)


def cut(response: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(response), *(place for place in cuts if place < len(response))})
    return [response[a:b] for a, b in pairwise(places)]


def outcome(parts: list[bytes], *, head_only: bool = False, poured: bool = False) -> object:
    """The same whatever the cuts, or cuts would decide what a response means. `poured`: taken as it comes."""
    reader = ResponseReader(head_only, HeadParser(HeadLimits(), FieldNames()))
    body = b""
    try:
        for part in parts:
            if poured and (piece := reader.sole(part)):
                body += piece
                continue
            reader.feed(part)
            body += reader.take() if poured else b""
        reader.feed_eof()
    except httpx.RemoteProtocolError:
        return reader.head.status, "refused"
    return reader.head, body + reader.take(), reader.trailers, reader.complete, reader.excess, reader.keep_alive


@settings(max_examples=1500, deadline=None)
@given(response=RESPONSES, cuts=CUTS, head_only=st.booleans())
def test_a_response_means_the_same_wherever_it_is_cut(response: bytes, cuts: list[int], head_only: bool) -> None:
    whole = outcome([response] if response else [], head_only=head_only)
    assert outcome(cut(response, cuts), head_only=head_only) == whole
    assert outcome(cut(response, cuts), head_only=head_only, poured=True) == whole
    assert outcome([response[i : i + 1] for i in range(len(response))], head_only=head_only) == whole


CHUNKS = st.lists(
    st.sampled_from([b"5\r\nhello\r\n", b"0A\r\n0123456789\r\n", b"4\r\n\r\n\r\n\r\n", b"3;x=y\r\nabc\r\n"])
    | st.sampled_from([b"5\r\nhel\r\n", b"3\r\nhello\r\n", b"+5\r\nhello\r\n", b"0x5\r\nhello\r\n", b" 5\r\nhello\r\n"])
    | st.sampled_from(
        [b"5 \r\nhello\r\n", b"5\nhello\r\n", b"5\r\nhello", b"\r\n", b"5\r\n", b"hello\r\n", b"0\r\n\r\n"]
    ),
    max_size=6,
)


@settings(max_examples=1000, deadline=None)
@given(chunks=CHUNKS, cuts=CUTS)
@example(chunks=[b"5\r\nhelloXY"], cuts=[])
@example(chunks=[b"A\r\n", b"5\r\nhello\r\n", b"\r\n"], cuts=[])
@example(chunks=[b"A\r", b"\n", b"5\r\nhello\r\n", b"\r", b"\n", b"5\r\nhello\r\n"], cuts=[])
def test_a_chunk_that_comes_alone_means_what_it_means_among_others(chunks: list[bytes], cuts: list[int]) -> None:
    head, body = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"".join(chunks) + b"0\r\n\r\n"
    borders = [sum(map(len, chunks[:count])) for count in range(1, len(chunks) + 1)]
    alone = outcome([head, *cut(body, borders)])
    assert alone == outcome([head + body]) == outcome([head, *cut(body, borders + cuts)])
    assert alone == outcome([head, *cut(body, borders)], poured=True)


@pytest.mark.parametrize("length", [1, 9, 15, 16, 17, 254, 255, 256, 257, 4095, 4096, 65_535, 65_536])
def test_a_chunk_of_any_length_is_read_alone(length: int) -> None:
    reader = ResponseReader(False, HeadParser(HeadLimits(), FieldNames()))
    reader.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert reader.sole(b"%x\r\n%b\r\n" % (length, b"x" * length)) == b"x" * length
    for other in (length - 1, length + 1):
        assert reader.sole(b"%x\r\n%b\r\n" % (length, b"x" * other)) == b""
    assert reader.sole(b"%x\r\n%b\r\r" % (length, b"x" * length)) == b""


@pytest.mark.parametrize("length", [3, 4, 5, 21, 262, 4103, 65_544])
def test_what_is_as_long_as_no_chunk_is_none(length: int) -> None:
    reader = ResponseReader(False, HeadParser(HeadLimits(), FieldNames()))
    reader.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for begin in (b"", b"\r", b"\n", b"0\r\n", b"%x\r\n" % (length - 3)):
        assert reader.sole((begin + b"x" * length)[: length - 2] + b"\r\n") == b""


@settings(max_examples=1500, deadline=None)
@given(response=RESPONSES)
def test_nothing_is_taken_for_another_body_than_h11_takes_it_for(response: bytes) -> None:
    ours = outcome([response] if response else [])
    if isinstance(ours, tuple) and len(ours) > 2:
        status, body = read_by_h11(response)
        assert (ours[0].status, ours[1]) == (status, body)


def read_by_h11(response: bytes) -> tuple[int, bytes]:
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "engine")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(response)
    connection.receive_data(b"")
    status, body = 0, b""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return status, body


@pytest.mark.parametrize("then_close", [True, False], ids=["and closes", "and stays"])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(response=RESPONSES, cuts=CUTS, method=st.sampled_from(["GET", "HEAD", "POST"]))
async def test_whatever_a_server_says_there_is_an_end(
    then_close: bool, response: bytes, cuts: list[int], method: str
) -> None:
    async def talk(connection: Connection) -> None:
        received = await connection.read_head()
        async for _ in connection.pieces(received):
            pass
        for part in cut(response, cuts):
            await connection.send(part)
            await asyncio.sleep(0)
        if not then_close:
            await connection.reader.read()

    async with RawServer(talk) as server, open_transport() as transport:
        for _ in range(2):
            try:
                async with asyncio.timeout(10):
                    await fetch(
                        transport,
                        server.url,
                        method,
                        content=b"x" if method == "POST" else None,
                        timeout={"read": 0.02},
                    )
            except httpx.TransportError:
                assert transport.counts.open == 0
            assert transport.counts.open == transport.counts.idle

from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.client.event_reader import EventReader

STREAM = (
    b"\xef\xbb\xbf: a comment\r\n\r\n"
    b"data: one\n\n"
    b"data:two\r\ndata:  three\r\n\r\n"
    b"event: x\rid: 7\rdata: f\xc3\xbcnf\r\r"
    b"data\ndata\n\n"
    b"retry: 3\n\n"
    b"data: [DONE]\n\n"
    b"data: without an end"
)
EVENTS = [b"one", b"two\n three", b"f\xc3\xbcnf", b"\n", b"[DONE]"]


def read(*pieces):
    reader = EventReader()
    return [event for piece in pieces for event in reader.feed(piece)]


def test_a_stream_in_one_piece_gives_its_events():
    assert read(STREAM) == EVENTS


def test_wherever_a_stream_is_cut_in_three_its_events_are_the_same():
    for a, b in combinations(range(len(STREAM) + 1), 2):
        assert read(STREAM[:a], STREAM[a:b], STREAM[b:]) == EVENTS, (a, b)


def test_byte_by_byte_and_with_empty_pieces_its_events_are_the_same():
    assert read(*(STREAM[at : at + 1] for at in range(len(STREAM)))) == EVENTS
    assert read(*(p for at in range(len(STREAM)) for p in (b"", STREAM[at : at + 1]))) == EVENTS


def test_an_event_is_given_with_the_piece_that_ends_it():
    reader = EventReader()
    assert reader.feed(b"data: a\n") == []
    assert reader.feed(b"\n") == [b"a"]
    assert reader.feed(b"data: b\r") == []
    assert reader.feed(b"\r") == [b"b"]
    assert reader.feed(b"\ndata: c\n\n") == [b"c"]


def by_the_book(stream):
    """Read a whole stream as the standard tells it, line by line."""
    text = stream.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    events, data = [], []
    for line in text.split(b"\n")[:-1]:
        if line == b"":
            if data:
                events.append(b"\n".join(data))
            data = []
            continue
        name, _, value = line.partition(b":")
        if name == b"data":
            data.append(value[1:] if value[:1] == b" " else value)
    return events


@given(
    parts=st.lists(
        st.sampled_from(
            [b"data", b":", b" ", b"\n", b"\r", b"\r\n", b"x", b"\xc3", b"\xa9", b"\xef\xbb\xbf"]
        ),
        max_size=40,
    ),
    cuts=st.lists(st.integers(0, 80), max_size=12),
)
def test_any_bytes_cut_anywhere_are_read_as_the_standard_says(parts, cuts):
    stream = b"".join(parts)
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [stream[a:b] for a, b in pairwise(places)]
    assert read(*pieces) == by_the_book(stream)


@pytest.mark.parametrize("stream", [b"", b": only\n\n", b"\n\n\n", b"data: half\n"])
def test_without_a_whole_event_there_is_none(stream):
    assert read(stream) == []

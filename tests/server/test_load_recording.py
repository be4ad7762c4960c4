"""Bytes and moments to events."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loads import native

from server.recording import BadAnswer, Recording, read_answer, read_events


def raw_answer(*chunks, ending=b"0\r\n\r\n"):
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in chunks) + ending


@given(cuts=st.lists(st.integers(0, 400)), joins=st.lists(st.integers(0, 60), max_size=5))
def test_however_the_bytes_are_cut_the_events_are_the_same(cuts, joins):
    text = b"".join(native(4))
    places = sorted({0, len(text), *(cut for cut in joins if cut < len(text))})
    chunks = [text[a:b] for a, b in pairwise(places)]
    data = raw_answer(*chunks)
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    reads = [(float(b), data[a:b]) for a, b in pairwise(places)]
    answer = read_answer(Recording(0.0, reads=reads))
    events = list(read_events(answer.pieces))
    assert answer.is_whole
    assert [data for _, data in events] == [e.strip()[6:] for e in native(4)]
    # an event has the moment of the read that brought its last byte
    assert [when for when, _ in events] == sorted(when for when, _ in events)
    assert events[-1][0] >= len(data) - len(b"\n\r\n0\r\n\r\n") - 1


def test_an_answer_is_whole_when_its_last_chunk_or_its_length_came():
    whole = raw_answer(*native(2))
    assert read_answer(Recording(0.0, reads=[(1.0, whole)])).is_whole
    for size in range(whole.index(b"\r\n\r\n") + 4, len(whole) - 4):
        assert not read_answer(Recording(0.0, reads=[(1.0, whole[:size])])).is_whole
    sized = b"HTTP/1.1 429 Too Many\r\nContent-Length: 4\r\n\r\nbusy"
    answer = read_answer(Recording(0.0, reads=[(1.0, sized)]))
    assert (answer.status, answer.body, answer.is_whole) == (429, b"busy", True)
    assert not read_answer(Recording(0.0, reads=[(1.0, sized[:-1])])).is_whole


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200 OK\r\n", b"SSH-2.0\r\n\r\n", b"\r\n\r\n"])
def test_what_is_no_answer_is_told(data):
    with pytest.raises(BadAnswer):
        read_answer(Recording(0.0, reads=[(1.0, data)]))

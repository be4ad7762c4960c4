"""Recording: the bytes of one answer with the moment each came, read only after the clock stopped.

Knows HTTP/1.1 and server-sent events; knows neither sockets nor what the events say.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

Timed = tuple[float, bytes]
"""When it was whole, on the monotonic clock in seconds, and what it was."""


class BadAnswer(Exception):
    """The bytes are not a whole answer; the message says what is missing."""


@dataclass(eq=False, slots=True)
class Recording:
    """One request: when it was due and sent, what came back when, and what went wrong below HTTP.

    Moments are seconds of `time.monotonic`, which all processes of a machine share.
    """

    due: float
    sent: float = 0.0
    reads: list[Timed] = field(default_factory=list)
    failure: str | None = None
    is_ended: bool = False
    """Nothing more comes."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a recording holds, as HTTP."""

    status: int
    pieces: tuple[Timed, ...]
    """The body as it came, without the marks of chunked coding."""
    is_whole: bool
    """It ended as its head said it would."""

    @property
    def body(self) -> bytes:
        """Join the pieces."""
        return b"".join(piece for _, piece in self.pieces)


def read_answer(recording: Recording) -> Answer:
    """Take HTTP apart; raises BadAnswer where there is no whole head."""
    head = b""
    for number, (when, data) in enumerate(recording.reads):
        head += data
        end = head.find(b"\r\n\r\n")
        if end >= 0:
            rest: list[Timed] = [(when, head[end + 4 :]), *recording.reads[number + 1 :]]
            return _read_body(head[:end], rest)
    raise BadAnswer("no answer came")


def read_events(pieces: Iterable[Timed]) -> Iterator[Timed]:
    """Give each event's data; those of this kind of server are one line each."""
    rest = b""
    for when, piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield when, line[5:].strip()


def _read_body(head: bytes, reads: list[Timed]) -> Answer:
    first, *lines = head.split(b"\r\n")
    status = first.split()[1:2]
    if not first.startswith(b"HTTP/1.") or not status or not status[0].isdigit():
        raise BadAnswer(f"not HTTP: {first[:80]!r}")
    headers = {name.lower(): value.strip() for name, _, value in (x.partition(b":") for x in lines)}
    if headers.get(b"transfer-encoding", b"").lower() == b"chunked":
        pieces, is_whole = _join_chunks(reads)
    else:
        pieces = tuple((when, data) for when, data in reads if data)
        size = sum(len(data) for _, data in pieces)
        is_whole = size == int(headers.get(b"content-length", size))
    return Answer(int(status[0]), pieces, is_whole)


def _join_chunks(reads: list[Timed]) -> tuple[tuple[Timed, ...], bool]:
    """Undo chunked coding; tell whether its last, empty chunk came."""
    pieces: list[Timed] = []
    rest = b""
    for when, data in reads:
        rest += data
        at = 0
        while (line := rest.find(b"\r\n", at)) >= 0:
            size = int(rest[at:line].split(b";")[0], 16)
            end = line + 2 + size
            if size == 0:
                return tuple(pieces), True
            if len(rest) < end + 2:
                break
            pieces.append((when, rest[line + 2 : end]))
            at = end + 2
        rest = rest[at:]
    return tuple(pieces), False

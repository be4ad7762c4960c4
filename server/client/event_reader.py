"""EventReader: bytes of a stream to the data of its events. Knows nothing of what they say.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

import re

_LINE_END = re.compile(rb"\r\n|\r|\n")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class EventReader:
    """Takes bytes as they come, cut anywhere."""

    def __init__(self) -> None:
        self._rest = b""
        """The line that has no end yet."""
        self._data: list[bytes] = []
        self._is_first_line = True
        self._is_after_return = False
        """A line end that was cut in two may go on with its line feed."""

    def feed(self, piece: bytes) -> list[bytes]:
        """Give the data of each event that is now whole; an event without data is none."""
        if self._is_after_return and piece:
            self._is_after_return = False
            piece = piece.removeprefix(b"\n")
        if piece:
            self._is_after_return = piece.endswith(b"\r")
        *lines, self._rest = _LINE_END.split(self._rest + piece)
        return [data for line in lines if (data := self._take(line)) is not None]

    def _take(self, line: bytes) -> bytes | None:
        """Read a line; an empty one ends the event. Comments and other fields mean nothing here."""
        if self._is_first_line:
            self._is_first_line = False
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if not line:
            data, self._data = self._data, []
            return b"\n".join(data) if data else None
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
        return None

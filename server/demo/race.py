"""Race: the times of a streamed and a whole answer, drawn as two bars on one axis of seconds.

Writes HTML of its own numbers only, with the classes of `style.css`; knows no text of a model.
"""

from server.demo.answer import Answer

_LEAST_AXIS_S = 0.5
_LEAST_BAR = 0.6
"""Per cent of the axis."""


class Race:
    """When the whole answer came; the streamed one's times are its Answer's."""

    def __init__(self) -> None:
        self._whole_s: float | None = None

    def whole_arrived(self, seconds: float) -> None:
        """Note when the answer that was not streamed came."""
        self._whole_s = seconds

    def draw(self, answer: Answer, *, is_over: bool = False) -> str:
        """Draw both so far; once it is over, say what streaming has gained."""
        first_s, whole_s = answer.first_s, self._whole_s
        reached_s = max(answer.last_s, whole_s or 0.0)
        axis_s = reached_s if is_over else max(reached_s * 1.15, _LEAST_AXIS_S)
        streamed = _lane("Streamed", first_s, answer.last_s or None, axis_s)
        waited = _lane("Not streamed", whole_s, whole_s, axis_s)
        return f'<div class="race">{streamed}{waited}<p>{self._sentence(answer)}</p></div>'

    def _sentence(self, answer: Answer) -> str:
        first_s, whole_s = answer.first_s, self._whole_s
        if first_s is None:
            return "Nothing has come yet."
        if whole_s is None:
            return f"You have been reading since {first_s:.2f} s; the other side shows nothing yet."
        return (
            f"Reading began after <b>{first_s:.2f} s</b> instead of <b>{whole_s:.2f} s</b>: "
            f"{whole_s / first_s:.0f} times sooner, for the same text."
        )


def _lane(name: str, first_s: float | None, last_s: float | None, axis_s: float) -> str:
    """Draw the wait as a thin line, what can be read as a thick bar, and the first word's time."""
    begin = min(100 - _LEAST_BAR, 100 * (first_s if first_s is not None else axis_s) / axis_s)
    end = 100 * (last_s if last_s is not None else axis_s) / axis_s
    width = max(_LEAST_BAR, end - begin)
    said = f"{first_s:.2f} s" if first_s is not None else "waiting"
    return (
        f'<div class="lane"><span class="name">{name}</span><span class="track">'
        f'<span class="wait" style="width:{begin:.2f}%"></span>'
        f'<span class="read" style="left:{begin:.2f}%;width:{width:.2f}%"></span>'
        f'</span><span class="time">{said}</span></div>'
    )

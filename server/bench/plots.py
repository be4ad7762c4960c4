"""Plots as SVG text: lines over two axes. Knows nothing of loads, only of series of points.

Colours, dashes and type come from the style sheet by class, so that one drawing suits light, dark
and paper. Every plot has a title and a description in words.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

NUM_STYLES = 6
"""So many series look different; the next begin again."""
_WIDTH, _HEIGHT = 480, 310
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 34, 44
_MANTISSAS = (1, 2, 5)
_CLOSE_MANTISSAS = (1, 1.5, 2, 3, 4, 5, 6, 8)
_MIN_TICKS = 3


@dataclass(frozen=True, slots=True)
class Series:
    """A line by its name; where it is drawn is in the units of the axes."""

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """From which value to which, and where its marks are."""

    label: str
    low: float
    high: float
    ticks: tuple[float, ...]
    is_log: bool = False

    def place(self, value: float) -> float:
        """Give the share of the axis at which a value lies; what is outside lies at its end."""
        value = min(max(value, self.low), self.high)
        if self.is_log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def linear_axis(label: str, high: float) -> Axis:
    """Make an axis from 0 to a round number that is not below `high`."""
    step = next(s for s in _round_numbers(-6) if s * 6 >= high)
    num_steps = max(1, math.ceil(high / step - 1e-9))
    ticks = tuple(step * number for number in range(num_steps + 1))
    return Axis(label=label, low=0.0, high=ticks[-1], ticks=ticks)


def log_axis(label: str, low: float, high: float) -> Axis:
    """Make an axis between two positive numbers, with a few marks at round ones."""
    if high < low * 2:  # nearly one value: some room on both sides
        low, high = low / 1.5, high * 1.5
    for mantissas in ((1,), _MANTISSAS, _CLOSE_MANTISSAS):
        ticks = tuple(n for n in _round_numbers(-6, mantissas) if low <= n <= high)
        if len(ticks) >= _MIN_TICKS:
            break
    return Axis(label=label, low=low, high=high, ticks=ticks, is_log=True)


def share_axis(label: str) -> Axis:
    """Make an axis from none to all, in per cent."""
    return Axis(label=label, low=0.0, high=100.0, ticks=(0.0, 25.0, 50.0, 75.0, 100.0))


def plot(
    *,
    plot_id: str,
    title: str,
    description: str,
    x: Axis,
    y: Axis,
    series: Sequence[Series],
    has_points: bool,
) -> str:
    """Draw lines; with points each value is marked, too, and says its number when pointed at."""
    lines = [_line(number, line, x, y, has_points=has_points) for number, line in enumerate(series)]
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-labelledby="{plot_id}-title {plot_id}-text">'
        f'<title id="{plot_id}-title">{escape(title)}</title>'
        f'<desc id="{plot_id}-text">{escape(description)}</desc>'
        f"{_grid(x, y)}{''.join(lines)}</svg>"
    )


def legend(names: Sequence[str]) -> str:
    """Say which line is which, in the order of the series."""
    items = [
        f'<li><svg viewBox="0 0 28 8" aria-hidden="true">'
        f'<path class="line {_style(number)}" d="M1 4H27"/></svg>{escape(name)}</li>'
        for number, name in enumerate(names)
    ]
    return f'<ul class="legend">{"".join(items)}</ul>'


def format_number(value: float) -> str:
    """Write a number with as many digits as its size needs, and thousands apart."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _grid(x: Axis, y: Axis) -> str:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = []
    for tick in y.ticks:
        at = _y(y, tick)
        parts.append(f'<path class="grid" d="M{_LEFT} {at:.1f}H{right}"/>')
        parts.append(
            f'<text class="y" x="{_LEFT - 8}" y="{at + 4:.1f}">{format_number(tick)}</text>'
        )
    for tick in x.ticks:
        at = _x(x, tick)
        parts.append(f'<path class="tick" d="M{at:.1f} {bottom}v5"/>')
        parts.append(f'<text class="x" x="{at:.1f}" y="{bottom + 20}">{format_number(tick)}</text>')
    middle = (_LEFT + right) / 2
    parts.append(f'<path class="axis" d="M{_LEFT} {bottom}H{right}"/>')
    parts.append(f'<text class="x" x="{middle:.0f}" y="{_HEIGHT - 6}">{escape(x.label)}</text>')
    parts.append(f'<text x="2" y="14">{escape(y.label)}</text>')
    return "".join(parts)


def _line(number: int, series: Series, x: Axis, y: Axis, *, has_points: bool) -> str:
    places = [(_x(x, a), _y(y, b)) for a, b in series.points]
    path = "L".join(f"{a:.1f} {b:.1f}" for a, b in places)
    drawn = f'<path class="line {_style(number)}" d="M{path}"/>'
    if has_points:
        for (a, b), (value, height) in zip(places, series.points, strict=True):
            told = f"{series.name}: {format_number(height)} at {format_number(value)}"
            drawn += (
                f'<circle class="point {_style(number)}" cx="{a:.1f}" cy="{b:.1f}" r="4">'
                f"<title>{escape(told)}</title></circle>"
            )
    return f"<g>{drawn}</g>"


def _style(number: int) -> str:
    return f"s{number % NUM_STYLES}"


def _x(axis: Axis, value: float) -> float:
    return _LEFT + axis.place(value) * (_WIDTH - _LEFT - _RIGHT)


def _y(axis: Axis, value: float) -> float:
    return _HEIGHT - _BOTTOM - axis.place(value) * (_HEIGHT - _TOP - _BOTTOM)


def _round_numbers(low: int, mantissas: Sequence[float] = _MANTISSAS) -> list[float]:
    """List some multiples of each power of ten, from the smallest on."""
    return [mantissa * 10.0**power for power in range(low, 15) for mantissa in mantissas]

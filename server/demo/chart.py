"""draw: the choices a model had, one strip a token, as a picture; noise where nothing is said yet.

Plain: numbers and words in, a PIL image out; knows neither Gradio nor the server.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIZE = (960, 720)
"""Width and height of every picture, in pixels."""

_SCALE = 2  # drawn larger and reduced: PIL's shapes have hard edges
_MARGIN, _TEXT_WIDTH, _GAP = 32, 168, 10
_TOP, _BOTTOM = 68, 48
_BACKGROUND = (11, 19, 32)
_TRACK = (24, 37, 56)
_TAKEN = (45, 212, 191)
_OTHERS = ((56, 112, 160), (47, 93, 138), (40, 78, 117), (35, 66, 100), (31, 57, 87))
_INK, _FAINT, _ON_TAKEN = (226, 236, 245), (125, 146, 170), (6, 38, 36)
_FONTS = ("DejaVuSans.ttf", "Arial.ttf", "Helvetica.ttc")
"""Tried in this order; they know more scripts than the one inside PIL."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Choice:
    """One token that could have come next."""

    text: str
    probability: float
    is_taken: bool


def draw(steps: list[list[Choice]], num_steps: int) -> Image.Image:
    """Draw the steps so far of `num_steps`; the choices of a step come likeliest first."""
    width, height = (side * _SCALE for side in SIZE)
    canvas = Image.new("RGB", (width, height), _BACKGROUND)
    brush = ImageDraw.Draw(canvas)
    _draw_legend(brush, len(steps), num_steps)
    row = (SIZE[1] - _TOP - _BOTTOM) / max(num_steps, 1)
    for number in range(num_steps):
        top = _TOP + number * row
        strip = _scaled((_MARGIN + _TEXT_WIDTH, top, SIZE[0] - _MARGIN, top + row - _gap(row)))
        if number < len(steps):
            _draw_step(brush, steps[number], strip)
        else:
            _draw_noise(canvas, strip, number + len(steps) * num_steps)
    return canvas.reduce(_SCALE)


def _gap(row: float) -> float:
    return min(_GAP, row / 4)


def _scaled(box: Box) -> Box:
    left, top, right, bottom = (side * _SCALE for side in box)
    return left, top, right, bottom


def _draw_legend(brush: ImageDraw.ImageDraw, num_done: int, num_steps: int) -> None:
    title, small = _font(19), _font(13)
    brush.text(_at(_MARGIN, 22), "What it might have said", _INK, title)
    said = f"step {num_done} of {num_steps}"
    brush.text(_at(_MARGIN, SIZE[1] - 32), said, _FAINT, small)
    left, right = _MARGIN + _TEXT_WIDTH, SIZE[0] - _MARGIN
    for share, anchor in ((0, "la"), (25, "ma"), (50, "ma"), (75, "ma"), (100, "ra")):
        x = left + (right - left) * share / 100
        brush.text(_at(x, SIZE[1] - 32), f"{share} %", _FAINT, small, anchor=anchor)


def _draw_step(brush: ImageDraw.ImageDraw, choices: list[Choice], strip: Box) -> None:
    """Draw a strip whose whole width is all that could have come, and its token left of it."""
    left, top, right, bottom = strip
    radius, font = 6 * _SCALE, _font(min(17, (bottom - top) / _SCALE * 0.5))
    brush.rounded_rectangle(strip, radius, _TRACK)
    middle = (top + bottom) / 2
    x, rank = left, 0
    for choice in choices:
        end = min(right, x + (right - left) * choice.probability)
        colour = _TAKEN if choice.is_taken else _OTHERS[min(rank, len(_OTHERS) - 1)]
        rank += not choice.is_taken
        if end - x >= 2 * _SCALE:
            brush.rounded_rectangle(
                (x, top, max(x, end - _SCALE), bottom), min(radius, (end - x) / 3), colour
            )
        ink = _ON_TAKEN if choice.is_taken else _INK
        label = _shown(choice.text)
        if font.getlength(label) + 16 * _SCALE < end - x:
            brush.text((x + 8 * _SCALE, middle), label, ink, font, anchor="lm")
        x = end
    taken = next(choice for choice in choices if choice.is_taken)
    brush.text(_at(_MARGIN, middle / _SCALE), _shown(taken.text), _TAKEN, font, anchor="lm")
    share = f"{taken.probability:.0%}"
    place = (left - 14 * _SCALE, middle)
    brush.text(place, share, _FAINT, _font(12), anchor="rm")


def _draw_noise(canvas: Image.Image, strip: Box, seed: int) -> None:
    """Fill the strip of a step that is still to come with noise, another one each time."""
    left, top, right, bottom = (int(side) for side in strip)
    grain = np.random.default_rng(seed).random(((bottom - top) // 6 + 1, (right - left) // 6 + 1))
    dark, light = np.array(_BACKGROUND), np.array(_OTHERS[3])
    colours = dark + (light - dark) * grain[..., None] ** 3
    noise = Image.fromarray(colours.astype(np.uint8)).resize((right - left, bottom - top), 0)
    shape = Image.new("L", noise.size, 0)
    ImageDraw.Draw(shape).rounded_rectangle((0, 0, *noise.size), 6 * _SCALE, 255)
    canvas.paste(noise, (left, top), shape)


def _at(x: float, y: float) -> tuple[float, float]:
    return x * _SCALE, y * _SCALE


def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    for name in _FONTS:
        try:
            return ImageFont.truetype(name, size * _SCALE)
        except OSError:
            continue
    return ImageFont.load_default(size * _SCALE)


def _shown(text: str) -> str:
    """Make spaces at the edges and control characters visible, and long tokens short."""
    marked = text.replace("\n", "⏎").replace("\t", "⇥")
    printable = "".join(c if c.isprintable() else "·" for c in marked)
    short = printable if len(printable) <= 14 else printable[:13] + "…"
    return short.strip(" ") or "␣"

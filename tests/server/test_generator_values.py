"""What generators may yield, and how it is written; pictures are read back by PIL."""

import base64
import dataclasses
import datetime
import enum
import io
import json
import subprocess
import sys

import msgspec
import numpy as np
import pytest
from PIL import Image

from server.generators.picture import MAX_PIXELS
from server.generators.value import Unsendable, encode_value

HEAD = "data:image/png;base64,"


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Step:
    number: int
    image: object = None


class Struct(msgspec.Struct):
    name: str


SENT = [
    (None, None),
    (True, True),
    (3, 3),
    (10**30, 10**30),
    (1.5, 1.5),
    ("text", "text"),
    ("é\u2028😀\\ud83d", "é\u2028😀\\ud83d"),
    ([1, (2, "a")], [1, [2, "a"]]),
    ({"a": {1: None}}, {"a": {"1": None}}),
    (np.float32(0.5), 0.5),
    ([np.int64(3), np.bool_(True)], [3, True]),
    (Colour.RED, "red"),
    (datetime.date(2026, 1, 2), "2026-01-02"),
    (Step(1), {"number": 1, "image": None}),
    (Struct("n"), {"name": "n"}),
]


def loop():
    made = []
    made.append(made)
    return made


def deep():
    made = []
    for _ in range(100_000):
        made = [made]
    return made


UNSENDABLE = [
    (float("nan"), "not JSON compliant"),
    ([float("inf")], "not JSON compliant"),
    (np.float32("nan"), "not JSON compliant"),
    ({1, 2}, "a set has no order"),
    (Step(1, {3}), "a set has no order"),
    (object(), "a value of type object is neither JSON nor a picture"),
    (1j, "a value of type complex"),
    (iter([]), "a value of type list_iterator"),
    ({(1, 2): 3}, "keys must be str"),
    ("half \ud83d", "half of a character"),
    ({"\udc00": 1}, "half of a character"),
    (10**5000, "4300 digits"),
    (loop(), "Circular reference"),
    (deep(), "nested too deeply"),
    ("x" * (17 << 20), "at most 16777216 bytes of JSON"),
    (np.zeros(3), "Given: shape [3]"),
    (np.zeros((2, 2, 2)), "Given: shape [2, 2, 2]"),
    (np.zeros((0, 2)), "Given: shape [0, 2, 1]"),
    (np.zeros((2, 2), int), "must be uint8 or floats. Given: int64"),
    (np.full((2, 2), np.nan), "must be finite"),
    (np.zeros((MAX_PIXELS // 2, 3), np.uint8), "at most 16777216 pixels"),
    (Image.new("1", (MAX_PIXELS // 2, 3)), "at most 16777216 pixels"),
]


def read_picture(value):
    url = json.loads(encode_value(value))
    assert url.startswith(HEAD)
    return Image.open(io.BytesIO(base64.b64decode(url.removeprefix(HEAD), validate=True)))


@pytest.mark.parametrize(("value", "expected"), SENT, ids=lambda value: ascii(value)[:30])
def test_json_is_sent_as_it_is(value, expected):
    text = encode_value(value)
    assert text.isascii()
    assert b"\n" not in text
    assert json.loads(text) == expected


@pytest.mark.parametrize(("value", "why"), UNSENDABLE, ids=range(len(UNSENDABLE)))
def test_what_cannot_be_sent_is_refused_in_a_sentence(value, why):
    with pytest.raises(Unsendable) as refusal:
        encode_value(value)
    assert why in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("shape", "mode"), [((5, 7), "L"), ((5, 7, 3), "RGB"), ((5, 7, 4), "RGBA")]
)
def test_an_array_of_bytes_is_sent_as_a_picture(shape, mode):
    array = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    picture = read_picture(array)
    assert (picture.format, picture.mode, picture.size) == ("PNG", mode, (7, 5))
    assert (np.asarray(picture) == array).all()


def test_an_array_that_is_a_view_is_sent_as_it_looks():
    array = np.random.default_rng(1).integers(0, 256, (6, 8, 3), np.uint8)
    view = array[::-2, 1::3, ::-1]
    assert (np.asarray(read_picture(view)) == view).all()


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_floats_are_shades_from_0_to_1_and_clipped(kind):
    picture = read_picture(np.array([[0.0, 0.5, 1.0, -3.0, 7.0]], kind))
    assert np.asarray(picture).tolist() == [[0, 128, 255, 0, 255]]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_a_pil_picture_that_png_knows_keeps_its_mode(mode):
    assert read_picture(Image.new(mode, (7, 5))).mode == mode
    assert read_picture(Image.new(mode, (7, 5))).size == (7, 5)


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "F", "I"])
def test_a_pil_picture_of_another_mode_is_sent_as_rgb(mode):
    assert read_picture(Image.new(mode, (7, 5))).mode == "RGB"


def test_pictures_are_found_at_any_depth():
    value = json.loads(encode_value({"steps": [Step(1, np.zeros((2, 2)))]}))
    assert value["steps"][0]["image"].startswith(HEAD)


def test_pil_is_not_imported_for_values_that_are_none_of_its_pictures():
    code = (
        "import sys\nfrom server.generators.value import Unsendable, encode_value\n"
        "try: encode_value(object())\nexcept Unsendable: print('PIL' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"

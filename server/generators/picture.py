"""picture_url: numpy arrays and PIL's pictures as PNG in a data URL.

PIL is no dependency: its pictures are recognised only where somebody has imported it. The format:
https://www.w3.org/TR/png-3/
"""

import base64
import io
import struct
import sys
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_PIXELS = 1 << 24
"""Of one picture: 4096 by 4096."""
_COLOUR_TYPES = {1: 0, 3: 2, 4: 6}
"""PNG's number for grey, RGB and RGBA, by the channels."""
_PNG_MODES = {"1", "L", "LA", "I;16", "P", "RGB", "RGBA"}


class NotAPicture(Exception):  # noqa: D101 - see `picture_url`
    pass


def picture_url(value: Any) -> str | None:
    """Write a picture as `data:image/png;base64,...`; None for what is neither array nor PIL's.

    Arrays are `[height, width]` or `[height, width, 3 or 4]`, uint8 or floats from 0 to 1.
    Raises NotAPicture, in a sentence.
    """
    if isinstance(value, np.ndarray):
        png = _array_png(value)
    elif _is_pil(value):
        png = _pil_png(value)
    else:
        return None
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _is_pil(value: Any) -> bool:
    image = sys.modules.get("PIL.Image")
    return image is not None and isinstance(value, image.Image)


def _pil_png(picture: Any) -> bytes:
    _check_size(*picture.size)
    buffer = io.BytesIO()
    sendable = picture if picture.mode in _PNG_MODES else picture.convert("RGB")
    sendable.save(buffer, "PNG")
    return buffer.getvalue()


def _array_png(array: NDArray[Any]) -> bytes:
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in _COLOUR_TYPES or 0 in array.shape:
        raise NotAPicture(
            "an array is sent as a picture, [height, width] or [height, width, 3 or 4]; "
            f"send numbers with .tolist(). Given: shape {list(array.shape)}"
        )
    height, width, channels = array.shape
    _check_size(width, height)
    # Each row begins with the number of its filter: 0, none.
    rows = np.zeros((height, 1 + width * channels), np.uint8)
    rows[:, 1:] = _bytes_of(array).reshape(height, -1)
    head = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _bytes_of(array: NDArray[Any]) -> NDArray[np.uint8]:
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind != "f":
        raise NotAPicture(f"a picture's array must be uint8 or floats. Given: {array.dtype}")
    if not np.isfinite(array).all():
        raise NotAPicture("a picture's floats must be finite. Given: NaN or infinity")
    scaled: NDArray[np.uint8] = (np.clip(array, 0.0, 1.0) * 255).round().astype(np.uint8)
    return scaled


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise NotAPicture(
            f"a picture must have at most {MAX_PIXELS} pixels. Given: {width} x {height}"
        )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

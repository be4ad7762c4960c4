"""Generators that tests publish: well-behaved ones, and every kind that is not."""

import asyncio
import contextvars
import threading
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta

GATE = threading.Event()
"""What `waits` waits for between its values."""
CLOSED_IN: list[str] = []
"""Names of the threads in which generators were closed."""
ASKED: list[int] = []
"""What `eager` was asked for."""
VAR = contextvars.ContextVar("VAR", default=0)


@dataclass
class Point:
    x: int
    y: float = 0.5


def typed(
    steps: Annotated[int, Meta(ge=1, le=9)],
    kind: Literal["a", "b"] = "a",
    at: Point | None = None,
    names: list[str] = [],  # noqa: B006 - as people write it
    is_loud: bool = False,
):
    """Say what it was given.

    And no more than that.
    """
    yield [steps, kind, at, names, is_loud]
    return "done"


def nested(points: list[Point], first: Point, either: bool | str, tags: dict[str, int]):
    yield [points, first, either, tags]


def untyped(value):
    yield value


def three():
    yield from ("one", "two", "three")


async def three_async():
    for word in ("one", "two", "three"):
        await asyncio.sleep(0)
        yield word


def nothing():
    yield from ()


def waits():
    """Yield each time the gate is opened; the thread stands in between."""
    try:
        for number in range(1000):
            yield number
            assert GATE.wait(30)
            GATE.clear()
    finally:
        CLOSED_IN.append(threading.current_thread().name)


async def waits_async():
    try:
        yield 1
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0)  # cleaning up may take a turn of the loop
        CLOSED_IN.append(asyncio.current_task().get_name())


async def deaf_async():
    """Swallow the first cancellation, as a bare except does, and yield on."""
    yield 1
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        CLOSED_IN.append("deaf")
    yield 2


def endless():
    number = 0
    try:
        while True:
            yield "x" * 100
            number += 1
    finally:
        CLOSED_IN.append(threading.current_thread().name)


def eager():
    for number in range(1000):
        ASKED.append(number)
        yield "x" * 100_000


def stubborn():
    """Refuse to be closed."""
    while True:
        try:
            yield 1
        except GeneratorExit:
            yield 2


def pictures():
    """Refine a picture each time the gate is opened."""
    for size in (20, 40, 60):
        yield np.full((size, size, 3), 0.5)
        assert GATE.wait(30)
        GATE.clear()


def grows():
    """Say a sentence word by word, as Gradio's examples do: each value is all of it so far."""
    yield from ("a", "a wheel", "a wheel turns")
    yield "anew"


def picture(size: int = 600):
    yield np.random.default_rng(7).random(size=(size, size, 3))


async def picture_async():
    yield {"step": 1, "image": np.zeros((2, 3), np.uint8)}


def raises(what: str, num_values: int = 0):
    yield from range(num_values)
    raise FAULTS[what]


async def raises_async(what: str, num_values: int = 0):
    for number in range(num_values):
        yield number
    raise FAULTS[what]


class Unspeakable(Exception):
    def __str__(self):
        raise ValueError("no words")


FAULTS = {
    "ValueError": ValueError("boom"),
    "SystemExit": SystemExit(3),
    "KeyboardInterrupt": KeyboardInterrupt(),
    "StopIteration": StopIteration(5),
    "GeneratorExit": GeneratorExit(),
    "CancelledError": asyncio.CancelledError(),
    "Unspeakable": Unspeakable(),
    "surrogate": ValueError("\ud83d"),
}


def unsendable(what: str, num_values: int = 0):
    yield from range(num_values)
    yield UNSENDABLE[what]


async def unsendable_async(what: str, num_values: int = 0):
    for number in range(num_values):
        yield number
    yield UNSENDABLE[what]


UNSENDABLE = {
    "set": {1, 2},
    "object": object(),
    "nan": float("nan"),
    "surrogate": ["\ud83d"],
    "huge": "x" * (17 << 20),
    "deep": None,
    "array": np.zeros(3),
    "integers": np.zeros((2, 2), int),
    "key": {(1, 2): 3},
    "generator": three(),
}
for _ in range(100_000):
    UNSENDABLE["deep"] = [UNSENDABLE["deep"]]


def returns_unsendable():
    yield 1
    return {1, 2}


def remembers():
    """Count in a context variable and in thread-local storage."""
    local = threading.local()
    local.count = 0
    for _ in range(3):
        VAR.set(VAR.get() + 1)
        local.count += 1
        yield [VAR.get(), local.count]


async def remembers_async():
    """Count in a context variable, and keep a timeout open, which one task must enter and leave."""
    async with asyncio.timeout(30):
        for _ in range(3):
            VAR.set(VAR.get() + 1)
            yield VAR.get()


def fails_at_the_gate():
    assert GATE.wait(30)
    raise ValueError("boom")
    yield


# What cannot be published


def no_generator():
    return 1


def with_args(*args):
    yield args


def with_kwargs(**kwargs):
    yield kwargs


def positional(value, /):
    yield value


def wrong_annotation(value: object):
    yield value


def unknown_annotation(value: "Nowhere"):  # noqa: F821
    yield value


def two_lists(value: list | tuple):
    yield value


def größe():
    yield 1


nameless = lambda: (yield 1)  # noqa: E731
NUMBER = 5

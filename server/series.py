"""Counter, Histogram, Summary and gauge in Prometheus' text format, over plain numbers.

The client library cannot name a counter without `_total`, as TGI does, and its histograms take a
lock for each value, which is too dear at one value a token. Knows no metric's name. The format:
https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Iterable, Sequence
from itertools import accumulate

ALONE = ("",)
"""The label values of a family without a label."""


class Counter:
    """Numbers that only grow: one, or one for each value of a closed label.

    With `is_shy` a number is shown only once it has grown.
    """

    def __init__(
        self,
        name: str,
        help: str,
        label: str = "",
        values: Iterable[str] = ALONE,
        *,
        is_shy: bool = False,
    ) -> None:
        self._name, self._help, self._label, self._is_shy = name, help, label, is_shy
        self._numbers: dict[str, int] = dict.fromkeys(values, 0)

    def add(self, value: str = "", by: int = 1) -> None:
        """Let one number grow; a label value that was not declared is a KeyError and a bug."""
        self._numbers[value] += by

    def lines(self) -> list[str]:
        """Give the family's lines, none while there is nothing to show."""
        rows = [
            f"{self._name}{_braces((self._label, value))} {number}"
            for value, number in self._numbers.items()
            if number or not self._is_shy
        ]
        return _head(self._name, self._help, "counter") + rows if rows else []


class Histogram:
    """How many values lie below each bound: one row, or one for each value of a closed label.

    With `is_shy` a row is shown only once it has a value.
    """

    def __init__(
        self,
        name: str,
        help: str,
        bounds: Sequence[float],
        label: str = "",
        values: Iterable[str] = ALONE,
        *,
        is_shy: bool = False,
    ) -> None:
        self._name, self._help, self._is_shy = name, help, is_shy
        self._rows = {value: _Row(name, bounds, (label, value)) for value in values}

    def observe(self, number: float, value: str = "") -> None:
        """Count a number; a label value that was not declared is a KeyError and a bug."""
        self._rows[value].observe(number)

    def observe_all(self, numbers: Sequence[float]) -> None:
        """Count many numbers at once, in a family without a label."""
        if numbers:
            self._rows[""].observe_all(numbers)

    def lines(self) -> list[str]:
        """Give the family's lines, none while there is nothing to show."""
        rows = [row for row in self._rows.values() if row.count or not self._is_shy]
        lines = [line for row in rows for line in row.lines()]
        return _head(self._name, self._help, "histogram") + lines if lines else []


class Summary:
    """Quantiles of small whole numbers over all time; shown only once there is one."""

    def __init__(self, name: str, help: str, quantiles: Sequence[float]) -> None:
        self._name, self._help, self._quantiles = name, help, tuple(quantiles)
        self._counts: Tally[int] = Tally()

    def observe(self, number: int) -> None:
        """Count a number."""
        self._counts[number] += 1

    def lines(self) -> list[str]:
        """Give the family's lines, none while there is nothing to show."""
        if not self._counts:
            return []
        numbers = sorted(self._counts)
        below = list(accumulate(self._counts[number] for number in numbers))
        rows = [
            f"{self._name}{_braces(('quantile', f'{quantile:g}'))} "
            f"{numbers[bisect_left(below, quantile * below[-1])]}"
            for quantile in self._quantiles
        ]
        total = sum(number * count for number, count in self._counts.items())
        rows += [f"{self._name}_sum {total}", f"{self._name}_count {below[-1]}"]
        return _head(self._name, self._help, "summary") + rows


class _Row:
    """One histogram: counts between the bounds, and their sum."""

    def __init__(self, name: str, bounds: Sequence[float], label: tuple[str, str]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        edges = [f"{bound:.10g}" for bound in bounds] + ["+Inf"]
        self._buckets = [f"{name}_bucket{_braces(label, ('le', edge))} " for edge in edges]
        self._sum_name = f"{name}_sum{_braces(label)} "
        self._count_name = f"{name}_count{_braces(label)} "

    @property
    def count(self) -> int:
        return sum(self._counts)

    def observe(self, number: float) -> None:
        self._counts[bisect_left(self._bounds, number)] += 1
        self._sum += number

    def observe_all(self, numbers: Sequence[float]) -> None:
        # The gaps of one step are nearly equal: they mostly share a bucket, and then no loop over
        # them runs in Python.
        low = bisect_left(self._bounds, min(numbers))
        if low == bisect_left(self._bounds, max(numbers)):
            self._counts[low] += len(numbers)
        else:
            for number in numbers:
                self._counts[bisect_left(self._bounds, number)] += 1
        self._sum += sum(numbers)

    def lines(self) -> list[str]:
        below = list(accumulate(self._counts))
        rows = [f"{bucket}{count}" for bucket, count in zip(self._buckets, below, strict=True)]
        return [*rows, f"{self._sum_name}{self._sum!r}", f"{self._count_name}{below[-1]}"]


def gauge(name: str, help: str, number: float, **labels: str) -> list[str]:
    """Give the lines of a number that is read when it is asked for."""
    return [*_head(name, help, "gauge"), f"{name}{_braces(*labels.items())} {number}"]


def _head(name: str, help: str, kind: str) -> list[str]:
    return [f"# HELP {name} {help}", f"# TYPE {name} {kind}"]


def _braces(*labels: tuple[str, str]) -> str:
    """Write the labels that have a name."""
    pairs = ",".join(f'{name}="{_escape(value)}"' for name, value in labels if name)
    return f"{{{pairs}}}" if pairs else ""


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

"""The loads that servers are compared by: a model, the lengths, and how many clients at a time."""

from dataclasses import dataclass, replace
from pathlib import Path

from ceilings import Ceiling, Work


@dataclass(frozen=True, slots=True)
class Point:
    """So many clients in a closed loop, and how many requests they share."""

    num_clients: int
    num_requests: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Loads on one model that differ in the number of clients; greedy, in exact tokens."""

    title: str
    model: str
    """Of `models.py`'s shapes."""
    num_prompt_tokens: int
    num_shared_tokens: int = 0
    """Of each prompt, at its beginning; in the cache before the clock starts."""
    num_output_tokens: int
    points: tuple[Point, ...]
    is_int8: bool = False

    @property
    def num_own_tokens(self) -> int:
        """Tokens of each prompt that no other prompt has."""
        return self.num_prompt_tokens - self.num_shared_tokens

    @property
    def max_clients(self) -> int:
        """So many answers are under way at a time."""
        return max(point.num_clients for point in self.points)

    def work(self, model_dir: Path) -> Work:
        """Say what the model must read and multiply here."""
        return Work.of(model_dir, 1 if self.is_int8 else 2)

    def bound_tokens_per_s(self, point: Point, work: Work, ceiling: Ceiling) -> float:
        """Give the most tokens per second that the machine's ceilings allow for a load.

        The clients go together: one step takes their prompts, the others give each a token. What
        they share is read once.
        """
        num_clients = point.num_clients
        num_new = num_clients * self.num_own_tokens
        prefill_s = ceiling.least_s(work.num_bytes(0), work.num_flops(num_new, num_clients))
        # half of an answer on average
        num_cached = self.num_shared_tokens + num_new + num_clients * self.num_output_tokens / 2
        decode_s = ceiling.least_s(
            work.num_bytes(num_cached), work.num_flops(num_clients, num_clients)
        )
        num_steps = self.num_output_tokens - 1
        return num_clients * self.num_output_tokens / (prefill_s + num_steps * decode_s)

    def shortened(self) -> "Family":
        """Keep few points, each with few requests, to see that all works."""
        points = [point for point in self.points if point.num_clients in (1, 8, 16)]
        few = tuple(Point(p.num_clients, max(2, p.num_clients)) for p in points)
        return replace(self, points=few, num_output_tokens=min(32, self.num_output_tokens))


_CLIENTS = (Point(1, 3), Point(4, 8), Point(16, 32), Point(64, 64))
_SMALL_MODEL = (Point(1, 6), Point(4, 16), Point(16, 48), Point(64, 64))

FAMILIES = {
    "0.5b": Family(
        title="0.5 B bf16",
        model="qwen-0.5b",
        num_prompt_tokens=128,
        num_output_tokens=64,
        points=_CLIENTS,
    ),
    "prefix": Family(
        title="0.5 B bf16, shared prefix",
        model="qwen-0.5b",
        num_prompt_tokens=1056,
        num_shared_tokens=1024,
        num_output_tokens=32,
        points=(Point(8, 24),),
    ),
    "30m": Family(
        title="30 M bf16",
        model="llama-30m",
        num_prompt_tokens=64,
        num_output_tokens=128,
        points=_SMALL_MODEL,
    ),
    "int8": Family(
        title="0.5 B int8",
        model="qwen-0.5b",
        num_prompt_tokens=128,
        num_output_tokens=64,
        points=(Point(1, 4), Point(16, 32)),
        is_int8=True,
    ),
}

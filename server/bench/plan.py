"""Plan: what a sweep asks for, before anything is known of the server. Does nothing itself."""

from dataclasses import dataclass

from server.loadgen import Load
from server.question import Dialect, Question


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One kind of question, asked by ever more clients."""

    url: str
    key: str | None
    model: str | None
    """None: as the server calls its own."""
    dialect: Dialect | None
    """None: as the server's `/info` tells."""
    question: Question
    num_clients: tuple[int, ...]
    num_requests: int
    """Of each level; at least two a client."""
    seed: int
    timeout_s: float

    def load(self, question: Question, level: int) -> Load:
        """Give the load of a level; each has other prompts, so that no cache knows them."""
        num_clients = self.num_clients[level]
        return Load(
            question=question,
            num_requests=max(self.num_requests, 2 * num_clients),
            num_clients=num_clients,
            seed=self.seed + level,
            timeout_s=self.timeout_s,
        )

"""Pace: how many prompt tokens the next step may hold, from what the steps so far took.

Who streams waits for the prompts that share a step with its next token, so such a step may take
only so long. Knows no clock (durations are passed in), no sequences and no torch.
"""

import math

_GRAIN = 16
"""Prompt tokens come in multiples: few shapes for the matrix products, whole tiles of theirs."""
_MAX_MIXED_STEPS = 32
"""So many steps with prompts in a row, then one without, to see again how long that takes."""


class Pace:
    """Learns what a step without prompts costs, and what a prompt token adds to it.

    A step with prompts may take `max_step_s`. Without that, twice the time of one without prompts,
    and longer only while more enter than stream: then time is shared by their numbers. Never less
    than `min_tokens` enter, so a step that is too long without prompts starves nobody.
    """

    def __init__(self, max_step_s: float | None, min_tokens: int, max_tokens: int) -> None:
        self.max_step_s = max_step_s
        self.min_tokens = min_tokens
        self.max_tokens = max_tokens
        self._decode_s: float | None = None
        """A step without prompts; by that of the last ones, whatever their rows and contexts."""
        self._num_streaming = 0
        """Rows of the last one."""
        self._token_s: float | None = None
        """What a prompt token adds: dearer after a long context and in small chunks."""
        self._num_mixed = 0
        """Steps with prompts and streams since the last one without prompts."""

    def room(self, num_streaming: int, num_entering: int) -> int:
        """Say how many prompt tokens the next step may hold beside so many rows that stream.

        `num_entering` sequences have a prompt to compute and could take part. 0 means: look again
        how long a step takes without prompts; the next step is then another's.
        """
        if not num_streaming or self._decode_s is None or self._token_s is None:
            return self.max_tokens
        if self._num_mixed >= _MAX_MIXED_STEPS or self._is_other_load(num_streaming):
            return 0
        if self.max_step_s is None:
            spare_s = self._decode_s * max(1.0, num_entering / num_streaming)
        else:
            spare_s = self.max_step_s - self._decode_s
        num_tokens = int(min(spare_s / self._token_s, self.max_tokens))
        return max(num_tokens - num_tokens % _GRAIN, self.min_tokens)

    def add(self, duration_s: float, num_streaming: int, num_prompt_tokens: int) -> None:
        """Learn from a step: what it took with so many rows that stream, beside prompt tokens."""
        if duration_s <= 0.0:
            return
        if not num_prompt_tokens:
            self._decode_s = _follow(self._decode_s, duration_s)
            self._num_streaming, self._num_mixed = num_streaming, 0
        elif num_streaming or self._token_s is None:
            self._num_mixed += 1
            decode_s = self._decode_s or 0.0
            added_s = max(duration_s - decode_s, 0.0)
            # Less than this and the room would be more than all; it would be long in coming back.
            least_s = decode_s / self.max_tokens or duration_s / num_prompt_tokens
            self._token_s = _follow(self._token_s, max(added_s / num_prompt_tokens, least_s))

    def _is_other_load(self, num_streaming: int) -> bool:
        """Tell whether so many rows were never seen without prompts, nor nearly."""
        return not self._num_streaming <= 2 * num_streaming <= 4 * self._num_streaming


def _follow(known: float | None, seen: float) -> float:
    """Go half the way to what was seen, in ratios; what is far off counts as half or double."""
    if known is None:
        return seen
    return math.sqrt(known * min(max(seen, known / 2.0), known * 2.0))

"""Pace: how many prompt tokens the next step may hold, from what the steps so far took.

Who streams waits for the prompts that share a step with its next token, so such a step may take
only so long. Knows no clock (durations are passed in), no sequences and no torch.
"""

_SHARE = 0.75
"""Of the time of a step without prompts, by which each sequence that enters may lengthen it."""
_MAX_ENTERING = 2
"""However many enter, a step is not lengthened for more than so many."""
_GRAIN = 8
"""Prompt tokens come in multiples, since libraries prepare a product for each number of rows."""
_MAX_MIXED_STEPS = 32
"""So many steps with prompts in a row, then one without, to see again how long that takes."""


class Pace:
    """Learns what a step without prompts takes, and what prompt tokens add to it.

    A step with prompts may take `max_step_s`. Without that, a step without prompts and three
    quarters of one for each of up to two sequences that enter: a lone newcomer adds that to the
    others' gaps, and a line is let in before rows stand empty. It enters piece by piece, so that
    those who came together do not also end together. Never less than `min_tokens` enter, so that
    steps which are too long without them starve nobody.
    """

    def __init__(self, max_step_s: float | None, min_tokens: int, max_tokens: int) -> None:
        self.max_step_s = max_step_s
        self.min_tokens = min_tokens
        self.max_tokens = max_tokens
        self._decode_s: float | None = None
        """A step without prompts, with the rows and contexts of the last ones."""
        self._num_streaming = 0
        """Rows of the last one."""
        self._num_mixed = 0
        """Steps with prompts and streams since then."""
        self._token_s: float | None = None
        """What a prompt token adds, among as many as there were: dearer among few, and after a
        long context."""

    def room(self, num_streaming: int, num_entering: int) -> int:
        """Say how many prompt tokens the next step may hold beside so many rows that stream.

        `num_entering` sequences have a prompt to compute and could take part. 0 means: see first
        how long a step without prompts takes now; there is room again in the one after it.
        """
        if not num_streaming or self._decode_s is None or self._token_s is None:
            return self.max_tokens
        if self._num_mixed >= _MAX_MIXED_STEPS or self._is_other_load(num_streaming):
            return 0
        if self.max_step_s is None:
            spare_s = self._decode_s * _SHARE * min(max(1, num_entering), _MAX_ENTERING)
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
        elif num_streaming:
            self._num_mixed += 1
            # fewer, such as a prompt's last ones, say nothing of more, and there is no less room
            if num_prompt_tokens >= self.min_tokens:
                self._learn(self._decode_s or 0.0, duration_s, num_prompt_tokens)
        elif self._token_s is None:
            self._token_s = duration_s / num_prompt_tokens

    def _learn(self, decode_s: float, duration_s: float, num_prompt_tokens: int) -> None:
        # not less than would let everything in: that would be long in coming back
        least_s = decode_s / self.max_tokens
        added_s = (duration_s - decode_s) / num_prompt_tokens
        self._token_s = _follow(self._token_s, max(added_s, least_s))

    def _is_other_load(self, num_streaming: int) -> bool:
        """Tell whether so many rows were never seen without prompts, nor nearly."""
        return not self._num_streaming <= 2 * num_streaming <= 4 * self._num_streaming


def _follow(known: float | None, seen: float) -> float:
    """Go half the way to what was seen; a stall of the machine counts as double, no more."""
    return seen if known is None else (known + min(max(seen, known / 2), known * 2)) / 2

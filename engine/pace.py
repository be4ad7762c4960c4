"""Pace: how many prompt tokens the next step may hold, from what the steps so far took.

Who streams waits for the prompts that share a step with its next token, so such a step may take
only so long. Knows no clock (durations are passed in), no sequences and no torch.
"""

_STRETCH = 2.25
"""Times a step without prompts, for one with some: gaps stay below 2.5 times the usual."""
_GRAIN = 16
"""Prompt tokens come in multiples: few shapes for the matrix products, whole tiles of theirs."""
_FEW_TOKENS = 32
"""What fewer of them add is owed more to their being there than to their number."""
_MAX_MIXED_STEPS = 32
"""So many steps with prompts in a row, then one without, to see again how long that takes."""


class Pace:
    """Learns what a step without prompts takes, and what prompt tokens add to it.

    A step with prompts may take `max_step_s`. Without that, 2.25 times one without prompts, and
    longer only while more enter than stream: then time is shared by their numbers. Never less than
    `min_tokens` enter, so that steps which are too long without them starve nobody.
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
        self._start_s = 0.0
        """What prompt tokens add by being there: more after a long context."""
        self._token_s: float | None = None
        """What each adds."""

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
            share = max(_STRETCH - 1.0, num_entering / num_streaming)
            spare_s = self._decode_s * share
        else:
            spare_s = self.max_step_s - self._decode_s
        num_tokens = int(min((spare_s - self._start_s) / self._token_s, self.max_tokens))
        return max(num_tokens - num_tokens % _GRAIN, self.min_tokens)

    def add(self, duration_s: float, num_streaming: int, num_prompt_tokens: int) -> None:
        """Learn from a step: what it took with so many rows that stream, beside prompt tokens."""
        if duration_s <= 0.0:
            return
        if not num_prompt_tokens:
            known_s = self._decode_s or duration_s
            self._decode_s = (known_s + _near(known_s, duration_s)) / 2.0
            self._num_streaming, self._num_mixed = num_streaming, 0
        elif self._token_s is None:
            self._token_s = duration_s / num_prompt_tokens
        elif num_streaming:
            self._num_mixed += 1
            self._learn(self._token_s, duration_s - (self._decode_s or 0.0), num_prompt_tokens)

    def _learn(self, token_s: float, added_s: float, num_tokens: int) -> None:
        """Go half the way to what was seen, by the line that is nearest to the last one.

        This is the normalised least-mean-squares filter, with inputs 1 and the number of tokens
        in units of a few: https://en.wikipedia.org/wiki/Least_mean_squares_filter
        """
        expected_s = self._start_s + token_s * num_tokens
        weight = num_tokens / _FEW_TOKENS
        error_s = (_near(expected_s, added_s) - expected_s) / 2.0 / (1.0 + weight * weight)
        self._start_s = max(self._start_s + error_s, 0.0)
        # not less than would let everything in: that would be long in coming back
        least_s = (self._decode_s or 0.0) / self.max_tokens
        self._token_s = max(token_s + error_s * weight / _FEW_TOKENS, least_s, token_s / 2.0)

    def _is_other_load(self, num_streaming: int) -> bool:
        """Tell whether so many rows were never seen without prompts, nor nearly."""
        return not self._num_streaming <= 2 * num_streaming <= 4 * self._num_streaming


def _near(known: float, seen: float) -> float:
    """Take what is far off for half or double: a stall of the machine says little."""
    return min(max(seen, known / 2.0), known * 2.0)

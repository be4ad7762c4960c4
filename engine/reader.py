"""Reader: turns sampled tokens into text, and sees where a sequence ends.

Decides by a sequence's own parameters; ends nothing itself.
"""

from collections.abc import Iterable

from engine.batch import Sampled
from engine.detokenizer import Vocabulary
from engine.outputs import FinishReason, PromptToken, Token, TopToken
from engine.sampling_params import SamplingParams
from engine.sequence import Sequence

_new = tuple.__new__
"""Makes what is made for each token; a named tuple's own call takes half as long again."""


class Reader:
    """Knows the vocabulary and the tokens that end an answer."""

    def __init__(self, vocabulary: Vocabulary, eos_token_ids: Iterable[int]) -> None:
        self._vocabulary = vocabulary
        self._eos_token_ids = frozenset(eos_token_ids)

    def read(
        self, sequence: Sequence, sampled: Sampled
    ) -> tuple[Token, FinishReason | None, str | None]:
        """Give a new token its text; say why the sequence ends with it, and by which stop text."""
        token_id, logprob, candidates = sampled
        num_output = len(sequence.token_ids) - sequence.num_prompt
        is_early = num_output <= sequence.params.min_new_tokens
        text, visible, is_special, stop = sequence.detokenizer.push(
            token_id, is_stopping=not is_early
        )
        is_full = num_output >= sequence.params.max_new_tokens
        reason = None
        if is_full or stop is not None or token_id in self._eos_token_ids:
            reason = self._reason(sequence.params, token_id, stop, is_full, is_early)
            if reason is not None and stop is None:
                visible += sequence.detokenizer.flush()
        top = tuple(self._top_token(*candidate) for candidate in candidates) if candidates else ()
        return _new(Token, (token_id, text, visible, is_special, logprob, top)), reason, stop

    def prompt_tokens(self, sequence: Sequence) -> tuple[PromptToken, ...]:
        """List the prompt's tokens with their logprobs, where these were asked for and known."""
        if not sequence.params.prompt_logprobs or sequence.wants_prompt_logprobs:
            return ()
        logprobs = [None, *sequence.prompt_logprobs]
        return tuple(
            PromptToken(i, self._vocabulary.special_text(i) or self._vocabulary.decode([i]), p)
            for i, p in zip(sequence.token_ids[: sequence.num_prompt], logprobs, strict=True)
        )

    def _reason(
        self,
        params: SamplingParams,
        token_id: int,
        stop: str | None,
        is_full: bool,
        is_early: bool,
    ) -> FinishReason | None:
        """Apply the order of the tests: TGI says length first, OpenAI last."""
        if is_full and params.length_first:
            return FinishReason.LENGTH
        is_wanted = params.grammar is not None or not (params.ignore_eos or is_early)
        if token_id in self._eos_token_ids and is_wanted:
            return FinishReason.EOS_TOKEN
        if stop is not None:
            return FinishReason.STOP_SEQUENCE
        return FinishReason.LENGTH if is_full else None

    def _top_token(self, token_id: int, logprob: float) -> TopToken:
        special = self._vocabulary.special_text(token_id)
        text = self._vocabulary.decode([token_id]) if special is None else special
        return TopToken(token_id, text, logprob, special is not None)

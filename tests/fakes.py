"""Fakes that tests share: a vocabulary, a runner that checks its batches, a clock. No mocks.

Test modules import them by name (`from fakes import ...`): `tests` is on the path.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from engine import Batch, Join, RowOutput, RowWork, Sampled, SamplingParams, StepOutput
from engine.detokenizer import Pieces

EOS = 0
"""The fake vocabulary's end token."""
SPECIALS = {0: "</s>", 1: "<s>", 2: "<|im_end|>"}
WORDS = 0x110000
"""Ids from here on, past the last code point, are the words a vocabulary was made with."""


class FakeVocabulary:
    """Code points are ids: 97 is "a". Three specials, and words of several characters."""

    def __init__(self, *words: str) -> None:
        self.words = words
        self.pieces = Pieces(self)

    def ids(self, text: str) -> list[int]:
        """Encode one id for each character."""
        return [ord(char) for char in text]

    def word(self, text: str) -> int:
        """Give the id of a word."""
        return WORDS + self.words.index(text)

    def token_bytes(self, token_id: int) -> bytes | None:
        return self._text(token_id).encode()

    def special_text(self, token_id: int) -> str | None:
        return SPECIALS.get(token_id)

    def decode(self, token_ids: list[int]) -> str:
        return "".join(self._text(i) for i in token_ids if i not in SPECIALS)

    def _text(self, token_id: int) -> str:
        return self.words[token_id - WORDS] if token_id >= WORDS else chr(token_id)


class FakeClock:
    """A clock that moves when it is told to; seconds."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> float:
        """Move on; return the new time."""
        self.now += seconds
        return self.now


@dataclass(eq=False)
class Row:
    """What a runner knows of one sequence: its join, and what the steps added."""

    sequence_id: int
    token_ids: list[int]
    num_prompt: int
    num_computed: int
    blocks: list[int]
    params: SamplingParams
    marks: list[int] = field(default_factory=list)
    """For each token a number that stands for it and all before it: what its key would depend on"""

    @classmethod
    def of(cls, join: Join) -> "Row":
        return cls(
            join.sequence_id,
            list(join.token_ids),
            join.num_prompt_tokens,
            join.num_computed_tokens,
            list(join.blocks),
            join.params,
        )

    @property
    def num_output(self) -> int:
        return len(self.token_ids) - self.num_prompt

    def mark(self, position: int) -> int:
        """Stand for the tokens up to `position`."""
        for at in range(len(self.marks), position + 1):
            before = self.marks[-1] if at else hash(self.params.adapter or "")
            self.marks.append(hash((before, self.token_ids[at])))
        return self.marks[position]

    def forget_last(self, count: int) -> None:
        """Drop so many tokens."""
        del self.token_ids[len(self.token_ids) - count :]
        del self.marks[len(self.token_ids) :]


Script = str | Sequence[int] | Callable[[Row], int]
"""What a sequence says: characters or ids and then EOS, or a function of its row."""


class ScriptedRunner:
    """A Runner that says what it is told, from rows built of batches alone.

    It stands in for the model too: each computed token leaves a mark in the cache slot that its
    block table names, and every step finds the marks of all earlier tokens there, or fails. Drafts
    leave theirs as well, right or wrong; the row keeps those that the script says too.
    Wait for `entered` and shut `gate` to hold a step in the middle; set `raises` or `row_errors`
    to let the next step go wrong.
    """

    def __init__(
        self, scripts: Script | Mapping[int, Script] = "", *, block_size: int | None = None
    ) -> None:
        self.scripts = scripts
        self.block_size = block_size
        """Tokens of a block; None does not look at blocks."""
        self.rows: dict[int, Row] = {}
        self.cache: dict[tuple[int, int], int] = {}
        self.batches: list[Batch] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.raises: Exception | None = None
        self.row_errors: dict[int, str] = {}
        self.is_closed = False

    def execute(self, batch: Batch) -> StepOutput:
        assert not self.is_closed
        self.batches.append(batch)
        self.entered.set()
        self.gate.wait()
        self._change_rows(batch)
        if self.raises is not None:
            error, self.raises = self.raises, None
            raise error
        for work in batch.work:
            self.rows[work.sequence_id].token_ids += work.drafts
        if self.block_size is not None:
            self._compute(batch, self.block_size)
        for work in batch.work:
            self.rows[work.sequence_id].forget_last(len(work.drafts))
        return StepOutput(batch.step, tuple(self._answer(work) for work in batch.work))

    def close(self) -> None:
        self.is_closed = True

    def _change_rows(self, batch: Batch) -> None:
        for sequence_id in batch.leave:
            del self.rows[sequence_id]
        for join in batch.join:
            assert join.sequence_id not in self.rows, "a row joins twice"
            self.rows[join.sequence_id] = Row.of(join)
        for work in batch.work:
            self.rows[work.sequence_id].blocks += work.new_blocks
        worked = [work.sequence_id for work in batch.work]
        assert len(set(worked)) == len(worked), "a row has work twice"
        assert {join.sequence_id for join in batch.join} <= set(worked), "a row joins without work"

    def _compute(self, batch: Batch, size: int) -> None:
        written: dict[tuple[int, int], int] = {}
        for work in batch.work:
            row = self.rows[work.sequence_id]
            end = row.num_computed + work.num_tokens
            assert end <= len(row.blocks) * size, "the block table does not cover the tokens"
            assert len(set(row.blocks)) == len(row.blocks), "a block table holds a block twice"
            for at in range(row.num_computed):
                mark = self.cache.get((row.blocks[at // size], at % size))
                assert mark == row.mark(at), f"row {row.sequence_id} finds a foreign key at {at}"
            for at in range(row.num_computed, end):
                slot = (row.blocks[at // size], at % size)
                assert slot not in written, "two rows write one slot"
                written[slot] = row.mark(at)
        writers = {block for block, _ in written}
        for block in writers:
            owners = [
                i for i in (w.sequence_id for w in batch.work) if block in self.rows[i].blocks
            ]
            assert len(owners) == 1, "a shared block is written"
        self.cache |= written

    def _answer(self, work: RowWork) -> RowOutput:
        row = self.rows[work.sequence_id]
        if work.drafts:
            return self._verify(row, work)
        start = row.num_computed
        end = row.num_computed = start + work.num_tokens
        assert work.num_tokens > 0
        assert end <= len(row.token_ids), "a row computes tokens that it does not have"
        assert work.is_sampled == (end == len(row.token_ids))
        assert work.num_logits in {int(work.is_sampled), work.num_tokens}
        if (error := self.row_errors.pop(row.sequence_id, None)) is not None:
            return RowOutput(row.sequence_id, error=error)
        prompt_logprobs: tuple[float, ...] = ()
        if row.params.prompt_logprobs and work.num_logits == work.num_tokens:
            last = min(end, row.num_prompt - 1)
            prompt_logprobs = tuple(-float(at) for at in range(start + 1, last + 1))
        sampled = (self._sample(row),) if work.is_sampled else ()
        row.token_ids += [token.token_id for token in sampled]
        return RowOutput(row.sequence_id, sampled, prompt_logprobs)

    def _verify(self, row: Row, work: RowWork) -> RowOutput:
        """Say what comes next for as long as it is what was guessed, and once more."""
        assert row.num_computed == len(row.token_ids) - 1, "guesses behind what is not computed"
        assert work.num_tokens == work.num_logits == 1 + len(work.drafts)
        assert work.is_sampled
        if (error := self.row_errors.pop(row.sequence_id, None)) is not None:
            return RowOutput(row.sequence_id, error=error)
        sampled: list[Sampled] = []
        for draft in (*work.drafts, None):
            sampled.append(self._sample(row))
            row.token_ids.append(sampled[-1].token_id)
            if sampled[-1].token_id != draft:
                break
        row.num_computed = len(row.token_ids) - 1
        return RowOutput(row.sequence_id, tuple(sampled))

    def _sample(self, row: Row) -> Sampled:
        script = self.scripts
        if isinstance(script, Mapping):
            script = script.get(row.sequence_id, "")
        if callable(script):
            token_id = script(row)
        else:
            ids = [ord(char) for char in script] if isinstance(script, str) else script
            token_id = ids[row.num_output] if row.num_output < len(ids) else EOS
        if row.params.logprobs is None:
            return Sampled(token_id)
        top = tuple((token_id + i, -0.5 - i) for i in range(row.params.num_top_logprobs))
        return Sampled(token_id, -0.5, top)

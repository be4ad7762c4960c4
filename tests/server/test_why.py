"""why: one sentence for every way a request can go, the largest part of its time first."""

import pytest

from engine import Circumstances, FinishReason, LongStep, WaitedFor
from server.live.why import Outcome, Room, Story, why
from server.millrace_metrics import Refusal

ROOM = Room(max_rows=4, max_permits=128)


def story(**changed):
    """Tell of 101 tokens in a second, alone, from a prompt of 20, and what differs from that."""
    spans = {"validation_s": 0.0, "queue_s": 0.0, "prefill_s": 0.01, "decode_s": 1.0}
    plain = {
        "outcome": Outcome.ANSWERED,
        "status": 200,
        "reasons": ("length",),
        "num_sequences": 1,
        "num_prompt_tokens": 20,
        "num_generated_tokens": 101,
        **spans,
    }
    told = plain | changed
    told.setdefault("total_s", sum(told[span] for span in spans))
    return Story(**told)


def around(**changed):
    return Circumstances(**({"mean_rows": 1.0} | changed))


def refused(refusal, **changed):
    plain = {"outcome": Outcome.REFUSED, "status": 429, "reasons": (str(refusal),)}
    nothing = dict.fromkeys(("num_sequences", "num_generated_tokens", "prefill_s", "decode_s"), 0)
    return story(**(plain | nothing | {"refusal": refusal, "total_s": 0.0001} | changed))


def unserved(outcome, status, reason, total_s):
    nothing = dict.fromkeys(("num_sequences", "num_generated_tokens", "prefill_s", "decode_s"), 0)
    reasons = (reason,) if reason else ()
    return story(outcome=outcome, status=status, reasons=reasons, total_s=total_s, **nothing)


DECODING = "decoding 101 tokens at 100 a second, alone in its steps"
LENGTH = "it ended at its length limit"
TOLD = {
    "decoding": (
        story(),
        f"It took 1.01 s, nearly all of it spent {DECODING}; {LENGTH}.",
    ),
    "company": (
        story(around=around(mean_rows=4.0), reasons=("eos_token",)),
        "It took 1.01 s, nearly all of it spent decoding 101 tokens at 100 a second, its steps "
        "shared with 3 others on average; the model ended it.",
    ),
    "little company": (
        story(around=around(mean_rows=2.04), reasons=("stop_sequence",)),
        "It took 1.01 s, nearly all of it spent decoding 101 tokens at 100 a second, its steps "
        "shared with 1 other on average; a stop string ended it.",
    ),
    "a broken mean": (
        story(around=around(mean_rows=3.46)),
        "It took 1.01 s, nearly all of it spent decoding 101 tokens at 100 a second, its steps "
        f"shared with 2.5 others on average; {LENGTH}.",
    ),
    "one token": (
        story(num_generated_tokens=1, prefill_s=0.0123, decode_s=0.0, num_prompt_tokens=1),
        f"It took 12 ms, nearly all of it spent on a prompt of 1 token; {LENGTH}.",
    ),
    "slow tokens": (
        story(num_generated_tokens=3, decode_s=4.0),
        "It took 4.01 s, nearly all of it spent decoding 3 tokens at 0.5 a second, alone in its "
        f"steps; {LENGTH}.",
    ),
    "a long prompt": (
        story(prefill_s=3.0, num_prompt_tokens=4096),
        "It took 4.00 s, most of it (3.00 s) spent on a prompt of 4,096 tokens; it also spent "
        f"1.00 s {DECODING}; {LENGTH}.",
    ),
    "a cached prompt is told however short it was": (
        story(prefill_s=0.002, num_prompt_tokens=512, num_cached_tokens=480),
        f"It took 1.00 s, nearly all of it spent {DECODING}; it also spent 2.0 ms on a prompt of "
        f"512 tokens, 480 of them from the cache; {LENGTH}.",
    ),
    "a row": (
        story(queue_s=4.0, around=around(waited_for=WaitedFor.ROW)),
        "It took 5.01 s, most of it (4.00 s) spent waiting while all 4 rows of the batch were "
        f"taken; it also spent 1.00 s {DECODING}; {LENGTH}.",
    ),
    "a row, in line": (
        story(queue_s=200.0, around=around(waited_for=WaitedFor.ROW, num_ahead=3)),
        "It took 3 min 21 s, nearly all of it spent waiting while all 4 rows of the batch were "
        f"taken, with 3 ahead of it in line; it also spent 1.00 s {DECODING}; {LENGTH}.",
    ),
    "blocks": (
        story(queue_s=20.0, around=around(waited_for=WaitedFor.BLOCKS)),
        "It took 21.0 s, nearly all of it spent waiting for blocks of the cache while others held "
        f"them; it also spent 1.00 s {DECODING}; {LENGTH}.",
    ),
    "a prefix": (
        story(queue_s=0.5, num_cached_tokens=16, around=around(waited_for=WaitedFor.PREFIX)),
        f"It took 1.51 s, most of it (1.00 s) spent {DECODING}; it also spent 500 ms waiting while "
        "another computed the beginning of its prompt and 10 ms on a prompt of 20 tokens, 16 of "
        f"them from the cache; {LENGTH}.",
    ),
    "its turn": (
        story(queue_s=0.8, around=around(num_ahead=2)),
        f"It took 1.81 s, most of it (1.00 s) spent {DECODING}; it also spent 800 ms waiting in "
        f"line with 2 ahead of it; {LENGTH}.",
    ),
    "the step before": (
        story(queue_s=0.6, decode_s=0.5, num_generated_tokens=51),
        "It took 1.11 s, most of it (600 ms) spent waiting for the step that was running; it also "
        f"spent 500 ms decoding 51 tokens at 100 a second, alone in its steps; {LENGTH}.",
    ),
    "a part that is the largest but not most": (
        story(queue_s=0.9, prefill_s=0.8, around=around(waited_for=WaitedFor.ROW)),
        f"It took 2.70 s, the largest part of it (1.00 s) spent {DECODING}; it also spent 900 ms "
        "waiting while all 4 rows of the batch were taken and 800 ms on a prompt of 20 tokens; "
        f"{LENGTH}.",
    ),
    "preempted": (
        story(decode_s=3.0, around=around(num_preempted=2, preempted_s=2.0)),
        "It took 3.01 s, most of it (2.00 s) spent set aside 2 times because the cache was full; "
        f"it also spent 1.00 s {DECODING}; {LENGTH}.",
    ),
    "preempted once": (
        story(decode_s=1.5, around=around(num_preempted=1, preempted_s=0.5)),
        f"It took 1.51 s, most of it (1.00 s) spent {DECODING}; it also spent 500 ms set aside "
        f"once because the cache was full; {LENGTH}.",
    ),
    "a pause with a cause": (
        story(around=around(longest_step=LongStep(0.18, 3, 512))),
        f"It took 1.01 s, nearly all of it spent {DECODING}; its longest pause, 180 ms, came when "
        f"a step took in 512 prompt tokens of others; {LENGTH}.",
    ),
    "a pause without": (
        story(around=around(longest_step=LongStep(0.05, 3, 0))),
        f"It took 1.01 s, nearly all of it spent {DECODING}; its longest pause, 50 ms, came in a "
        f"step that only decoded; {LENGTH}.",
    ),
    "a step that does not stand out": (
        story(around=around(longest_step=LongStep(0.025, 3, 512))),
        f"It took 1.01 s, nearly all of it spent {DECODING}; {LENGTH}.",
    ),
    "a step that nobody sees": (
        story(num_generated_tokens=1001, around=around(longest_step=LongStep(0.019, 3, 512))),
        "It took 1.01 s, nearly all of it spent decoding 1,001 tokens at 1,000 a second, alone in "
        f"its steps; {LENGTH}.",
    ),
    "a slow reader": (
        story(total_s=5.01),
        "It took 5.01 s, most of it (4.00 s) spent on a reader that took it slowly; it also spent "
        f"1.00 s {DECODING}; {LENGTH}.",
    ),
    "a dear check": (
        story(validation_s=3.0),
        f"It took 4.01 s, most of it (3.00 s) spent checking and encoding it; it also spent 1.00 s "
        f"{DECODING}; {LENGTH}.",
    ),
    "several sequences": (
        story(
            num_sequences=2,
            num_prompt_tokens=40,
            num_generated_tokens=202,
            reasons=("length", "length"),
            prefill_s=0.5,
        ),
        "It took 1.50 s, most of it (1.00 s) spent decoding 202 tokens in 2 sequences at 200 a "
        "second, alone in its steps; it also spent 500 ms on 2 prompts of 40 tokens together; "
        f"{LENGTH}.",
    ),
    "several ends": (
        story(num_sequences=2, num_generated_tokens=202, reasons=("length", "eos_token")),
        "It took 1.01 s, nearly all of it spent decoding 202 tokens in 2 sequences at 200 a "
        "second, alone in its steps.",
    ),
    "gone": (
        story(outcome=Outcome.CLIENT_GONE, reasons=("abort",)),
        f"The client left after 1.01 s, nearly all of it spent {DECODING}.",
    ),
    "gone from the line": (
        story(
            outcome=Outcome.CLIENT_GONE,
            reasons=("abort",),
            num_generated_tokens=0,
            queue_s=2.0,
            prefill_s=0.0,
            decode_s=0.0,
            around=around(waited_for=WaitedFor.ROW, mean_rows=None),
        ),
        "The client left after 2.00 s, nearly all of it spent waiting while all 4 rows of the "
        "batch were taken.",
    ),
    "gone before": (
        unserved(Outcome.CLIENT_GONE, 200, None, 0.0042),
        "The client left after 4.2 ms, before anything was generated.",
    ),
    "stalled": (
        story(outcome=Outcome.READER_STALLED, reasons=("abort",), total_s=31.01),
        "It was cut off after 31.0 s because its reader had stopped reading, nearly all of it "
        f"spent waiting for a reader that took nothing; it also spent 1.00 s {DECODING}.",
    ),
    "shutdown": (
        story(outcome=Outcome.SHUTDOWN, reasons=("overloaded",)),
        f"It was ended after 1.01 s because the server stopped, nearly all of it spent {DECODING}.",
    ),
    "failed": (
        story(outcome=Outcome.FAILED, reasons=("generation",)),
        f"It failed after 1.01 s (generation), nearly all of it spent {DECODING}.",
    ),
    "invalid": (
        unserved(Outcome.FAILED, 422, "validation", 0.0004),
        "It was turned down after 0.4 ms: 422, validation.",
    ),
    "our fault": (
        unserved(Outcome.FAILED, 500, "internal", 0.002),
        "It failed after 2.0 ms by a fault of the server, before anything was generated.",
    ),
    "no permit": (
        refused(Refusal.NO_PERMIT),
        "It was refused at once: all 128 permits were held by requests that came before.",
    ),
    "no room": (
        refused(Refusal.QUEUE_FULL),
        "It was refused at once: the waiting room was full.",
    ),
    "expired": (
        refused(
            Refusal.QUEUE_EXPIRED,
            total_s=5.0,
            num_sequences=1,
            queue_s=5.0,
            around=around(waited_for=WaitedFor.ROW, num_ahead=1),
        ),
        "It was refused after 5.00 s, as long as a request may wait here, spent waiting while all "
        "4 rows of the batch were taken, with 1 ahead of it in line.",
    ),
    "draining": (
        refused(Refusal.DRAINING),
        "It was refused at once: the server is stopping and takes nothing new.",
    ),
}


@pytest.mark.parametrize("name", TOLD)
def test_the_sentence_tells_what_took_the_time(name):
    told, sentence = TOLD[name]
    assert why(told, ROOM) == sentence


@pytest.mark.parametrize(
    ("max_rows", "words"),
    [(1, "the only row of the batch was"), (2, "both rows of the batch were")],
)
def test_small_batches_are_spoken_of_as_a_person_would(max_rows, words):
    waiting = story(queue_s=4.0, around=around(waited_for=WaitedFor.ROW))
    assert f"waiting while {words} taken" in why(waiting, Room(max_rows=max_rows, max_permits=1))


def test_every_refusal_and_every_outcome_is_told():
    assert {told.refusal for told, _ in TOLD.values()} == {None, *Refusal}
    assert {told.outcome for told, _ in TOLD.values()} == set(Outcome)


@pytest.mark.parametrize("reason", FinishReason)
@pytest.mark.parametrize("outcome", [o for o in Outcome if o is not Outcome.ANSWERED])
@pytest.mark.parametrize("waited_for", [None, *WaitedFor])
def test_a_sentence_is_one_sentence_in_ascii(reason, outcome, waited_for):
    ended = story(outcome=outcome, reasons=(str(reason),), around=around(waited_for=waited_for))
    told = why(ended, ROOM)
    assert told.isascii()
    assert told.endswith(".")
    assert ". " not in told
    assert told[0].isupper()

"""Golden transcripts: what goes in, what the engine says, and the very bytes that come out.

The files were written by hand from the wire contract, never by our renderer. A file has a sentence,
the dialect, and sections: a body and scripted deltas, or a problem; an answer, or a refusal.
"""

import json
import re
from pathlib import Path

import pytest
from dialect_config import dialect_config

from engine import Delta, Finish, FinishReason, PromptToken, Token, TopToken, Usage
from server.dialects import openai
from server.dialects.call import EncodedPrompt
from server.dialects.chat import ChatDialect
from server.dialects.cloud import InvocationsDialect, VertexDialect
from server.dialects.completions import CompletionsDialect
from server.dialects.messages import MessagesDialect
from server.dialects.responses import ResponsesDialect
from server.dialects.tgi import CompatDialect, GenerateDialect, GenerateStreamDialect
from server.errors import ErrorType, Problem

NUM_PROMPT_TOKENS = 5
"""Of every prompt, before it is run."""
GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.txt"))
CALL_ID = re.compile(
    r'"id":"([A-Za-z0-9]{9})","type":"function"'
    r'|"type":"tool_use","id":"([A-Za-z0-9]{9})"|"call_id":"([A-Za-z0-9]{9})"'
)
"""What `$CALL0` and so on stand for, in their order."""
DIALECTS = {
    "generate": GenerateDialect,
    "generate_stream": GenerateStreamDialect,
    "compat": CompatDialect,
    "completions": CompletionsDialect,
    "chat": ChatDialect,
    "responses": ResponsesDialect,
    "messages": MessagesDialect,
    "invocations": InvocationsDialect,
    "vertex": VertexDialect,
}


class Golden:
    """One transcript."""

    def __init__(self, path):
        head, *parts = path.read_text("utf-8").split("=== ")
        self.sections = dict(part.split("\n", 1) for part in parts)
        settings = dict(line.split(": ", 1) for line in head.splitlines()[1:])
        config = dialect_config(**json.loads(settings.get("config", "{}")))
        self.dialect = DIALECTS[settings["dialect"]](config)

    @property
    def body(self):
        return self.sections["body"].rstrip("\n").encode()

    def deltas(self):
        """Read the script: (index, Delta) pairs and Problems, in order."""
        script = []
        for line in self.sections["deltas"].splitlines():
            word, _, rest = line.partition(" ")
            value = json.loads(rest)
            match word:
                case "@":
                    script.append((value, {"tokens": []}))
                case "token" | "special":
                    script[-1][1]["tokens"].append(token(word == "special", *value))
                case "problem":
                    script.append(Problem(ErrorType(value[0]), value[1]))
                case _:
                    script[-1][1][word] = value
        return [
            step if isinstance(step, Problem) else (step[0], delta(**step[1])) for step in script
        ]


def token(is_special, token_id, text, logprob, visible=None, top=()):
    if visible is None:
        visible = "" if is_special else text
    candidates = tuple(TopToken(*candidate) for candidate in top)
    return Token(token_id, text, visible, is_special, logprob, candidates)


def delta(tokens, finish=None, prefill=(), stop=None):
    if finish is None:
        return Delta(tuple(tokens))
    reason, text, num_prompt, num_output, *cached = finish
    usage = Usage(num_prompt, sum(cached), num_output, 0.0, 0.0, 0.0)
    prompt = tuple(PromptToken(*item) for item in prefill)
    return Delta(tuple(tokens), Finish(FinishReason(reason), text, usage, stop, prompt=prompt))


def answer(golden):
    """Play the transcript; return the bytes and what was asked of the engine."""
    call = golden.dialect.parse(golden.body)
    generations = call.generations()
    assert len(generations) == call.num_permits
    prompts = [EncodedPrompt(NUM_PROMPT_TOKENS) for _ in generations]
    reply = call.reply("r1", 1_767_225_600, prompts)
    sent = b""
    for step in golden.deltas():
        if isinstance(step, Problem):
            return sent + reply.problem(step), generations
        written = reply.delta(*step)
        assert call.is_stream or not written
        sent += written
    return sent + reply.end(), generations


def named(pattern):
    """Parametrize over the transcripts that have such a section."""
    found = [path for path in GOLDEN if f"=== {pattern}\n" in path.read_text("utf-8")]
    return pytest.mark.parametrize("path", found, ids=lambda path: path.stem)


@named("answer")
def test_an_answer_is_byte_for_byte_what_the_contract_says(path):
    golden = Golden(path)
    sent, generations = answer(golden)
    expected = golden.sections["answer"].replace("$FINGERPRINT", openai.FINGERPRINT)
    for index, generation in enumerate(generations):
        expected = expected.replace(f"$SEED{index}", str(generation.params.seed))
    found = ["".join(groups) for groups in CALL_ID.findall(sent.decode("ascii"))]
    for index, call_id in enumerate(dict.fromkeys(found)):
        expected = expected.replace(f"$CALL{index}", call_id)
    assert sent.decode("ascii").rstrip("\n") == expected.rstrip("\n")
    if expected.startswith(("data: ", "event: ")):
        assert sent.endswith(b"\n\n")
        assert not sent.endswith(b"\n\n\n")


@named("refusal")
def test_a_refusal_is_byte_for_byte_what_the_contract_says(path):
    golden = Golden(path)
    status, body = golden.sections["refusal"].splitlines()
    if "problem" in golden.sections:
        error_type, message = json.loads(golden.sections["problem"])
        problem = Problem(ErrorType(error_type), message)
    else:
        with pytest.raises(Problem) as caught:
            golden.dialect.parse(golden.body).generations()
        problem = caught.value
    assert problem.status == int(status)
    assert golden.dialect.problem(problem).decode("ascii") == body


def test_every_transcript_is_played():
    played = [
        p
        for p in GOLDEN
        if any(f"=== {s}\n" in p.read_text("utf-8") for s in ("answer", "refusal"))
    ]
    assert len(played) == len(GOLDEN) >= 50

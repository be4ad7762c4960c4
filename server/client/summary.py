"""What is said of an answer at its end: the speed line, the details, the table of tokens."""

import json
import math

from server.client.answer import Answer
from server.report import table


def speed_line(answer: Answer, ending: str | None = None) -> str:
    """Say in one line how fast the answer came; `ending` says why it is no whole one."""
    if answer.first is None:
        return ending or "no token came"
    tokens = f"{answer.count} token" + "s" * (answer.count != 1)
    parts = [f"first token after {(answer.first - answer.sent) * 1e3:.0f} ms", tokens]
    if answer.tokens_per_s is not None:
        parts.append(f"{answer.tokens_per_s:.1f} tokens/s")
    return ", ".join([*parts, *filter(None, [ending])])


def details(answer: Answer) -> str:
    """Write what the end of the stream told, a line each; `-` is what the server did not tell."""
    cached = answer.num_cached_tokens
    prompt = _or_dash(answer.num_prompt_tokens)
    rows = {
        "finish reason": _or_dash(answer.finish_reason),
        "tokens": f"{answer.count}",
        "prompt tokens": prompt if cached is None else f"{prompt} ({cached} from the cache)",
        "seed": _or_dash(answer.seed),
    }
    return "\n".join(f"{name:<15}{value}" for name, value in rows.items())


def token_table(answer: Answer) -> str:
    """Write each token with its logprob, and the probability that this is."""
    if not answer.tokens:
        return "the server showed no tokens"
    rows = [
        [json.dumps(token.text, ensure_ascii=False), *_chance(token.logprob)]
        for token in answer.tokens
    ]
    return table(("token", "logprob", "probability"), rows)


def _chance(logprob: float | None) -> tuple[str, str]:
    if logprob is None:
        return "-", "-"
    return f"{logprob:.3f}", f"{100 * math.exp(logprob):.1f} %"


def _or_dash(value: object) -> str:
    return "-" if value is None else f"{value}"

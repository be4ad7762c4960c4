"""A process that calls LiteLLM: a line of JSON in, a call; a line of JSON out, what came of it.

Its own process, since LiteLLM leaves coroutines behind and trips over warnings that are errors in
tests; and one for all calls, since it takes seconds to import. Knows no server.
"""

import asyncio
import json
import sys
from typing import Any

import litellm


def main() -> None:
    """Answer each line until there is no more."""
    answers = sys.stdout
    sys.stdout = sys.stderr  # LiteLLM prints advice
    for line in sys.stdin:
        print(json.dumps(outcome(**json.loads(line))), file=answers, flush=True)


def outcome(is_async: bool, **asked: Any) -> dict[str, Any]:
    """Make one call: the answer, or the list of chunks, or what was raised."""
    try:
        value = asyncio.run(awaited(asked)) if is_async else plain(asked)
    except Exception as error:
        return {"error": {"type": type(error).__name__, "message": str(error)}}
    return {"value": value}


def plain(asked: dict[str, Any]) -> Any:
    answer = litellm.completion(**asked)
    if asked.get("stream"):
        return [chunk.model_dump() for chunk in answer]
    return answer.model_dump()


async def awaited(asked: dict[str, Any]) -> Any:
    answer = await litellm.acompletion(**asked)
    if asked.get("stream"):
        return [chunk.model_dump() async for chunk in answer]
    return answer.model_dump()


if __name__ == "__main__":
    main()

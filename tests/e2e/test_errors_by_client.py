"""The table of errors: what each client raises for each, with our words in it.

In every case the server is asked once: no client repeats what cannot get better, and 429 only those
repeat that were told to.
"""

import asyncio
import json
import subprocess
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anthropic
import openai
import pytest
import text_generation
from huggingface_hub import InferenceClient
from in_process import in_process, repeat_prompt
from langchain_huggingface import ChatHuggingFace, HuggingFaceEndpoint
from langchain_openai import ChatOpenAI
from occupancy import ENDLESS, wait_for
from raw_http import asking
from setup_peers import NPM_PACKAGES

from server.errors import ErrorType, Problem

pytestmark = [
    pytest.mark.needs("node", NPM_PACKAGES),
    # the old client's code, not ours
    pytest.mark.filterwarnings("ignore:The `dict` method is deprecated"),
]

JS = Path(__file__).parent / "js"


def by_openai(url, words, is_stream):
    with openai.OpenAI(base_url=f"{url}/v1", api_key="-", max_retries=0) as client:
        chat = [{"role": "user", "content": words}]
        answer = client.chat.completions.create(model="m", messages=chat, stream=is_stream)
        list(answer)


def by_anthropic(url, words, is_stream):
    with anthropic.Anthropic(base_url=url, api_key="-", max_retries=0) as client:
        chat = [{"role": "user", "content": words}]
        answer = client.messages.create(model="m", max_tokens=9, messages=chat, stream=is_stream)
        list(answer)


def by_hub(url, words, is_stream):
    with InferenceClient(url) as client:
        list(client.text_generation(words, max_new_tokens=9, stream=is_stream))


def by_hub_chat(url, words, is_stream):
    with InferenceClient(url) as client:
        chat = [{"role": "user", "content": words}]
        list(client.chat_completion(chat, max_tokens=9, stream=is_stream))


def by_old(url, words, is_stream):
    client = text_generation.Client(url)
    ask = client.generate_stream if is_stream else client.generate
    list(ask(words, max_new_tokens=9))


def by_langchain(url, words, is_stream):
    model = ChatOpenAI(base_url=f"{url}/v1", api_key="-", model="m", max_retries=0)
    list(model.stream(words) if is_stream else model.invoke(words))


def by_langchain_hub(url, words, is_stream):
    endpoint = HuggingFaceEndpoint(endpoint_url=url, huggingfacehub_api_token="-")
    model = ChatHuggingFace(llm=endpoint, model_id="m")
    list(model.stream(words) if is_stream else model.invoke(words))


class Elsewhere(Exception):
    """What a client in another process threw; each class is made by its name."""


def by_js(client):
    def ask(url, words, is_stream):
        case = "askStream" if is_stream else "ask"
        command = ["node", "run.mjs", client, case, url, words]
        done = subprocess.run(command, cwd=JS, capture_output=True, text=True, check=True)
        error = json.loads(done.stdout.splitlines()[-1])["error"]
        name = f"{error['type']} {error['status']}" if error["status"] else error["type"]
        raise type(name, (Elsewhere,), {})(f"{error['message']} {error['body']}")

    return ask


def by_litellm(ask, url, words, is_stream):
    chat = [{"role": "user", "content": words}]
    if error := ask(url, "openai", messages=chat, stream=is_stream).get("error"):
        raise type(error["type"], (Elsewhere,), {})(error["message"])


CLIENTS = {
    "openai": by_openai,
    "openai js": by_js("openai"),
    "anthropic": by_anthropic,
    "hub": by_hub,
    "hub chat": by_hub_chat,
    "hf js 3": by_js("hf3"),
    "hf js 4": by_js("hf4"),
    "text_generation": by_old,
    "langchain": by_langchain,
    "langchain hub": by_langchain_hub,
}
RAISED = {
    "openai": (
        *("UnprocessableEntityError", "AuthenticationError", "NotFoundError", "APIStatusError"),
        *("RateLimitError", "RateLimitError", "APIStatusError", "InternalServerError", "APIError"),
    ),
    "openai js": (
        *("UnprocessableEntityError 422", "AuthenticationError 401", "NotFoundError 404"),
        *("APIError 413", "RateLimitError 429", "RateLimitError 429", "APIError 424"),
        *("InternalServerError 500", "APIError"),
    ),
    "anthropic": (
        *("UnprocessableEntityError", "AuthenticationError", "NotFoundError"),
        *("ContentTooLargeError", "RateLimitError", "RateLimitError", "APIStatusError"),
        *("InternalServerError", "APIStatusError"),
    ),
    "hub": (  # its classes are by `error_type`, and it knows neither keys nor routes
        *("ValidationError", "UnknownError", "UnknownError", "ValidationError"),
        *("OverloadedError", "OverloadedError", "GenerationError"),
        *("IncompleteGenerationError", "GenerationError"),
    ),
    "hub chat": (*["HfHubHTTPError"] * 8, "GenerationError"),
    "hf js 3": ["Error"] * 9,  # there is no other
    "hf js 4": [
        f"InferenceClientProviderApiError {status}"
        for status in (422, 401, 404, 413, 429, 429, 424, 500, 200)
    ],
    "text_generation": (
        *("ValidationError", "UnknownError", "NotFoundError", "ValidationError"),
        *("OverloadedError", "OverloadedError", "GenerationError"),
        *("IncompleteGenerationError", "GenerationError"),
    ),
    "langchain": (
        *("UnprocessableEntityError", "OpenAIAuthenticationError", "OpenAIModelNotFoundError"),
        *("APIStatusError", "OpenAIRateLimitError", "OpenAIRateLimitError", "APIStatusError"),
        *("OpenAIAPIError", "APIError"),
    ),
    "langchain hub": (*["HfHubHTTPError"] * 8, "GenerationError"),
    "litellm": (  # it tells by our words that the prompt is too long
        *("ContextWindowExceededError", "AuthenticationError", "NotFoundError", "APIError"),
        *("RateLimitError", "RateLimitError", "APIError", "InternalServerError"),
        "MidStreamFallbackError",
    ),
}
"""By client, the class for each of ERRORS; of clients for JavaScript with the status it bears."""


def failing_at(number):
    def script(row):
        if row.num_output == number:
            raise RuntimeError("out of luck")
        return repeat_prompt(row)

    return script


@dataclass(frozen=True)
class Case:
    """A server, and what is asked of it."""

    options: dict
    says: str
    """What of our message reaches the caller."""
    words: str = "abc"
    path: str = ""
    is_stream: bool = False


LIMITS = {"max_input_tokens": 64, "max_total_tokens": 96}
FULL = {"max_concurrent_requests": 1}
ERRORS = {
    "validation": Case({"limits": LIMITS}, "`inputs` tokens", "abc" * 99),
    "key": Case({"api_keys": ("open-sesame",)}, "API key is needed"),
    "route": Case({}, "There is no route|404$", path="/nothing"),
    "size": Case({"payload_limit_bytes": 2_000}, "at most 2000 bytes", "abc" * 999),
    "no room": Case(FULL, "Model is overloaded"),
    "no room for a stream": Case(FULL, "Model is overloaded", is_stream=True),
    "fault": Case({"scripts": failing_at(0)}, "out of luck"),
    "cut short": Case({"scripts": failing_at(0)}, "out of luck"),
    "fault in mid-stream": Case({"scripts": failing_at(3)}, "out of luck", is_stream=True),
}
TABLE = [
    (client, error, name)
    for client, names in RAISED.items()
    for error, name in zip(ERRORS, names, strict=True)
]


@pytest.mark.parametrize(("client", "error", "name"), TABLE)
async def test_each_client_raises_its_class_for_each_error(
    client, error, name, monkeypatch, ask_litellm
):
    if error == "cut short":
        problem = Problem(ErrorType.INCOMPLETE_GENERATION, "out of luck")
        monkeypatch.setattr("server.generate.from_engine", lambda error, retry_after_s: problem)
    case = ERRORS[error]
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(in_process(**case.options))
        if case.options is FULL:
            server.runner.gate.clear()
            await stack.enter_async_context(asking(server.url, "/generate_stream", ENDLESS))
            await wait_for(lambda: server.held()["millrace_permits_held"] == 1)
        client = CLIENTS.get(client) or partial(by_litellm, ask_litellm)
        ask = partial(client, server.url + case.path, case.words, case.is_stream)
        with pytest.raises(Exception, match=case.says) as raised:
            await asyncio.to_thread(ask)
        assert type(raised.value).__name__ == name
        if case.options is FULL:
            assert server.metric("millrace_requests_refused_total") == 1
        server.runner.gate.set()

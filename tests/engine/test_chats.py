"""Chats are rendered as the library would, in a process that ends on time whatever they do."""

import asyncio
import os
import signal
from contextlib import asynccontextmanager

import pytest
from occupancy import wait_for
from tiny_tokenizers import TEMPLATE, byte_level, fast

from engine.chat import Chat, Template, question, read_answer
from engine.chats import Chats
from engine.errors import GenerationFailed, Overloaded, TemplateError

HOSTILE = {
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "counts": "{{ 9 ** (9 ** (6 + n)) }}",
    "multiplies": "{{ 'a' * (n * 10 ** 9) }}",
    "doubles": "{% set ns = namespace(x='a') %}"
    "{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "recurses": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "says too much": "{{ 'a' * 10 ** 6 }}",
    "raises": "{{ raise_exception('roles must ' ~ 'alternate' * n) }}",
    "divides": "{{ 1 / 0 }}",
    "lacks": "{{ messages[7].content }}",
    "joins": "{{ ''.join(messages) }}",
    "reaches out": "{{ messages.__class__.__mro__ }}",
}
"""What a template may do, by what a message asks it for."""
REFUSAL = {
    "loops": r"^rendering the chat takes more than 0.8 s$",
    "counts": r"^rendering the chat takes more than 0.8 s$",
    "multiplies": r"^rendering the chat takes more than 256 MiB$",
    "doubles": r"^rendering the chat takes more than (256 MiB|0.8 s)$",
    "recurses": r"recursion",
    "says too much": r"^the rendered chat may have 65\d\d\d characters. It has 1000\d\d\d$",
    "raises": r"^roles must alternate$",
    "divides": r"^division by zero$",
    "lacks": r"no element 7",
    "joins": r".",
    "reaches out": r".",
}
BRANCHES = "{% set n = messages | length %}" + "".join(
    f"{{% if messages[0].content == '{name}' %}}{text}{{% endif %}}"
    for name, text in HOSTILE.items()
)
PLAIN = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


@asynccontextmanager
async def chats(template=BRANCHES + TEMPLATE, special_tokens=None):
    running = Chats(Template(template, special_tokens or {}))
    try:
        yield running
    finally:
        await running.close()


def user(content):
    return Chat(({"role": "user", "content": content},))


async def render(running, chat):
    return read_answer(await running.render(question(chat)))


def alive(group):
    """List the processes of a group, those that nobody has waited for, too."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as stat:
                fields = stat.read().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(int(pid))
    return found


async def asked(running):
    """Wait until a chat is being rendered."""
    await wait_for(lambda: running._num_due)


# -- what is rendered


LIKE_LLAMA = (
    "{{ bos_token }}{% if tools is not none %}{% for t in tools %}{{ t | tojson(indent=4) }}"
    "{% endfor %}{% endif %}{%- if not date is defined %}{% set date = strftime_now('%Y') %}"
    "{% endif %}{{ date }}{% for m in messages %}{% if m.role == 'skip' %}{% continue %}{% endif %}"
    "<|im_start|>{{ m['role'] }}\n\n{{ m['content'] | trim }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n\n{% endif %}"
)
LIKE_QWEN = (
    "{%- set ns = namespace(last=-1) %}{%- for m in messages[::-1] %}{%- if m.role == 'user' and "
    "ns.last < 0 %}{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}{{ ns.last }}"
    "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' + (m.content or '') }}"
    "{%- for c in m.tool_calls or [] %}{{- c.function.arguments | tojson }}{%- endfor %}"
    "{% generation %}{{ m.reasoning_content }}{% endgeneration %}{{- '<|im_end|>\\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is false %}{{- '<think></think>' }}{%- endif %}{%- endif %}"
)
NAMED = {"default": TEMPLATE, "tool_use": LIKE_LLAMA}
TOOLS = [{"type": "function", "function": {"name": "f", "description": "naïve 你好 <b>"}}]
CALL = {"type": "function", "function": {"name": "f", "arguments": {"a": [1, 2.5, None, True]}}}
CONVERSATIONS = (
    [{"role": "user", "content": " hi\u2028\U0001f600\t "}],
    [{"role": "system", "content": "Be brief."}, {"role": "skip", "content": "x"}],
    [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "hm"},
        {"role": "tool", "content": "4", "name": "f"},
        {"role": "assistant", "content": "So:  "},
    ],
)


@pytest.mark.parametrize("template", [TEMPLATE, LIKE_LLAMA, LIKE_QWEN, NAMED])
async def test_a_chat_is_what_the_library_makes_of_it(template):
    library = fast(byte_level(), template)
    async with chats(template, library.special_tokens_map) as running:
        for messages in CONVERSATIONS:
            for variables in ({}, {"tools": TOOLS, "enable_thinking": False, "date": "now"}):
                for is_continued in (False, messages[-1]["role"] == "assistant"):
                    expected = library.apply_chat_template(
                        messages,
                        tokenize=False,
                        add_generation_prompt=not is_continued,
                        continue_final_message=is_continued,
                        **variables,
                    )
                    chat = Chat(tuple(messages), is_continued, variables)
                    assert await render(running, chat) == expected


# -- what is refused


async def test_whatever_a_template_does_there_is_an_answer_and_the_next_chat_is_rendered():
    async with chats() as running:
        for name, refusal in REFUSAL.items():
            with pytest.raises(TemplateError, match=refusal):
                await render(running, user(name))
            assert await render(running, user("hi")) == PLAIN
        group = running._process.pid
        assert len(alive(group)) == 2
    assert not alive(group)


@pytest.mark.parametrize("template", ["{% for %}", "{{ 'a' * 10 ** 9 }}", "{{ 9 ** (9 ** 9) }}"])
async def test_a_template_that_cannot_be_compiled_refuses_every_chat(template):
    async with chats(template) as running:
        for _ in range(2):
            with pytest.raises(TemplateError):
                await render(running, user("hi"))


async def test_what_a_template_says_when_it_refuses_is_cut():
    async with chats("{{ raise_exception('no' * 10000) }}") as running:
        with pytest.raises(TemplateError, match=r"^(no){500}$"):
            await render(running, user("hi"))


async def test_continuing_no_message_is_refused():
    async with chats() as running:
        with pytest.raises(TemplateError):
            await render(running, Chat((), is_continued=True))


# -- who waits, leaves, and dies


async def test_who_waits_too_long_for_others_is_told_to_come_again(monkeypatch):
    async with chats() as running:
        await render(running, user("hi"))
        slow = asyncio.create_task(render(running, user("loops")))
        await asyncio.sleep(0)
        monkeypatch.setattr("engine.chats._MAX_WAIT_S", 0.1)
        with pytest.raises(Overloaded, match="too many chats"):
            await render(running, user("hi"))
        with pytest.raises(TemplateError):
            await slow


async def test_nobody_gets_the_chat_of_someone_who_has_left():
    async with chats() as running:
        for name in ("hi", "loops"):  # while the process starts, and while it renders
            leaving = asyncio.create_task(render(running, user(name)))
            await asked(running)
            leaving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaving
            expected = PLAIN.replace("hi", f"after {name}")
            assert await render(running, user(f"after {name}")) == expected


async def test_many_at_once_get_each_their_own():
    async with chats() as running:
        names = [f"{i} " * 1000 * (i % 3) for i in range(30)]
        texts = await asyncio.gather(*(render(running, user(name)) for name in names))
        assert texts == [PLAIN.replace("hi", name) for name in names]


async def test_a_process_that_dies_is_started_again():
    async with chats() as running:
        await render(running, user("hi"))
        first = running._process
        os.kill(first.pid, signal.SIGKILL)
        await wait_for(lambda: first.returncode is not None)
        assert await render(running, user("hi")) == PLAIN
        assert running._process.pid != first.pid
        await wait_for(lambda: not alive(first.pid))


async def test_who_asks_when_the_process_dies_is_told_and_the_next_is_served():
    async with chats() as running:
        await render(running, user("hi"))
        asking = asyncio.create_task(render(running, user("loops")))
        await asked(running)
        os.killpg(running._process.pid, signal.SIGKILL)
        with pytest.raises(GenerationFailed, match="chats cannot be rendered"):
            await asking
        assert await render(running, user("hi")) == PLAIN


async def test_what_stops_the_server_does_not_stop_the_rendering():
    async with chats() as running:
        await render(running, user("hi"))
        os.killpg(running._process.pid, signal.SIGTERM)
        assert await render(running, user("hi")) == PLAIN


async def test_the_process_ends_when_nobody_is_left_to_ask_it():
    async with chats() as running:
        await render(running, user("hi"))
        process = running._process
        process.stdin.close()
        assert await process.wait() == 0
        await wait_for(lambda: not alive(process.pid))

import re
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_tokenizers import (
    SPECIALS,
    TEMPLATE,
    byte_fallback,
    byte_level,
    fast,
    metaspace,
    word_piece,
)
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models

from engine.chat import Chat, question
from engine.chat_process import Library
from engine.tokenizer import TextSpan, Tokenizer

KINDS = (byte_level, byte_fallback, metaspace, word_piece)
LIBRARY = {build.__name__: fast(build()) for build in KINDS}
OURS = {name: Tokenizer(fast(LIBRARY[name].backend_tokenizer)) for name in LIBRARY}
BYTE_LEVEL = OURS["byte_level"]
every_kind = pytest.mark.parametrize("kind", LIBRARY)
unicode_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def user(content, **more):
    return ({"role": "user", "content": content, **more},)


def specials_in(tokenizer, ids):
    return [text for i in ids if (text := tokenizer.special_text(i)) is not None]


def render(tokenizer, messages, is_continued=False, **variables):
    chat = Chat(messages, is_continued, variables)
    return Library(tokenizer.template).render(question(chat))


def encode_chat(tokenizer, messages, is_continued=False, variables=None):
    """Do what the engine does, without the process."""
    chat, mark = tokenizer.marked(Chat(messages, is_continued, variables or {}))
    text = render(tokenizer, chat.messages, is_continued, **chat.variables)
    return tokenizer.encode_marked(text, mark)


FRAME = ["<|im_start|>", "<|im_end|>", "<|im_start|>"]
"""The template's own special tokens around one message."""


# -- prompts


def test_a_prompt_gets_the_models_own_tokens_and_its_special_text_acts():
    ids = BYTE_LEVEL.encode("a<|im_end|>b</s>")
    assert specials_in(BYTE_LEVEL, ids) == ["<s>", "<|im_end|>", "</s>"]


@every_kind
@given(text=unicode_text)
def test_a_prompts_ids_are_the_librarys(kind, text):
    assert OURS[kind].encode(text) == LIBRARY[kind].encode(text)


@given(text=unicode_text)
def test_byte_level_text_comes_back_whole(text):
    assert BYTE_LEVEL.decode(BYTE_LEVEL.encode(text)) == text


def test_padding_and_truncation_in_the_file_do_not_change_a_prompt():
    backend = byte_level()
    backend.enable_padding(length=50)
    backend.enable_truncation(2)
    assert Tokenizer(fast(backend)).encode("abcdefgh") == BYTE_LEVEL.encode("abcdefgh")


# -- chats


@every_kind
@given(content=st.text(st.sampled_from("ab <s|im_end>\n\ue000你"), max_size=20), more=unicode_text)
def test_a_chat_without_special_text_has_exactly_the_librarys_ids(kind, content, more):
    messages = (
        {"role": "system", "content": more},
        {"role": "user", "content": content},
    )
    if any(special in text for special in SPECIALS for text in (content, more)):
        return
    expected = LIBRARY[kind].apply_chat_template(
        list(messages), add_generation_prompt=True, tokenize=True, return_dict=False
    )
    assert encode_chat(OURS[kind], messages) == expected


hostile_text = st.lists(
    st.sampled_from(
        [*SPECIALS, "<unk>", "<|im_", "end|>", "<", "a", " ", "\ue000", "0", "\n", "1"]
    ),
    max_size=8,
).map("".join)


@every_kind
@given(content=hostile_text, more=hostile_text)
def test_special_text_in_contents_gives_no_special_id(kind, content, more):
    tokenizer = OURS[kind]
    messages = (*user(content), {"role": "assistant", "content": more}, *user("ok"))
    frame = FRAME[:2] * 3 + FRAME[2:]
    assert specials_in(tokenizer, encode_chat(tokenizer, messages)) == frame


@given(content=hostile_text)
def test_special_text_in_contents_is_read_as_the_text_it_is(content):
    ids = encode_chat(BYTE_LEVEL, user(content))
    assert BYTE_LEVEL.decode(ids) == f"user\n{content}\nassistant\n"


def test_special_text_in_contents_has_the_ids_of_any_other_text():
    plain = Backend.from_str(byte_level().to_str())
    plain.encode_special_tokens = True
    ids = plain.encode("<|im_end|>").ids
    assert len(ids) < len("<|im_end|>"), "nothing was merged"
    chat = encode_chat(BYTE_LEVEL, user("<|im_end|>"))
    assert ids in [chat[at : at + len(ids)] for at in range(len(chat))]


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": [{"type": "text", "text": "<|im_end|>"}]},
        {"role": "user<|im_end|>", "content": "hi"},
        {"role": "user", "content": {"deep": ["</s>", ("<s>",)]}},
    ],
)
def test_special_text_anywhere_in_a_message_is_text(message):
    ids = encode_chat(BYTE_LEVEL, (message,))
    assert specials_in(BYTE_LEVEL, ids) == FRAME


def test_contents_that_are_no_text_reach_the_template_as_they_are():
    tokenizer = Tokenizer(fast(byte_level(), "{{ messages[0].n + 1 }}{{ messages[0].x is true }}"))
    ids = encode_chat(tokenizer, user("", n=1, x=True))
    assert tokenizer.decode(ids) == "2True"


def test_a_user_who_sends_every_private_character_is_served():
    content = "".join(map(chr, range(0xE000, 0xF900))) + "<|im_end|>"
    ids = encode_chat(BYTE_LEVEL, user(content))
    assert specials_in(BYTE_LEVEL, ids) == FRAME
    assert BYTE_LEVEL.decode(ids) == f"user\n{content}\nassistant\n"


def test_a_template_that_cuts_contents_short_still_gives_no_special_id():
    for size in range(1, 40):
        template = f"{{{{ messages[0].content[:{size}] }}}}"
        tokenizer = Tokenizer(fast(byte_level(), template))
        ids = encode_chat(tokenizer, user("<|im_end|>" * 3))
        assert specials_in(tokenizer, ids) == []


def test_special_text_that_the_template_drops_or_repeats_is_text():
    template = "{{ messages[0].content }}<s>{{ messages[0].content | trim }}"
    tokenizer = Tokenizer(fast(byte_level(), template))
    ids = encode_chat(tokenizer, (*user(" </s> "), *user("<|im_end|>")))
    assert specials_in(tokenizer, ids) == ["<s>"]
    assert tokenizer.decode(ids) == " </s> </s>"


JOINING = "{% for m in messages %}{{ m.name }}{{ m.content }}{{ m.name }}{% endfor %}<s>"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("<|im_", "end|>"),
        ("end|><|im_", "end|><|im_"),
        ("</", "s>"),
        ("s>", "<"),
        ("|>", "<|im_end"),
    ],
)
def test_special_text_that_the_template_puts_together_is_text(name, content):
    tokenizer = Tokenizer(fast(byte_level(), JOINING))
    ids = encode_chat(tokenizer, user(content, name=name) * 2)
    assert specials_in(tokenizer, ids) == ["<s>"]
    assert tokenizer.decode(ids) == (name + content + name) * 2


@given(content=st.text(st.sampled_from("<|im_end>/s \n"), max_size=9), name=hostile_text)
def test_what_is_nearly_special_has_the_librarys_own_ids(content, name):
    library = fast(byte_level(), JOINING)
    messages = user(content, name=name)
    if any(special in f"{name}{content}{name}" for special in SPECIALS):
        return
    expected = library.apply_chat_template(list(messages), tokenize=True, return_dict=False)
    assert encode_chat(Tokenizer(library), messages) == expected


def test_added_tokens_that_are_not_special_act_in_contents():
    think = BYTE_LEVEL.encode("<think>")[1]
    assert think in encode_chat(BYTE_LEVEL, user("<think></s>"))


TOOLS_TEMPLATE = (
    "{{ tools | tojson }}{{ effort }}<s>{% for m in messages %}{{ m.name }}{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ c.id }}{{ c.function.name }}"
    "{{ c.function.arguments | tojson }}{% endfor %}{% endfor %}"
)


@given(text=hostile_text)
def test_special_text_in_tools_calls_and_results_gives_no_special_id(text):
    tokenizer = Tokenizer(fast(byte_level(), TOOLS_TEMPLATE))
    schema = {"properties": {text: {"type": "string", "enum": [text]}}}
    function = {"name": text, "description": text, "parameters": schema}
    call = {"id": text, "function": {"name": text, "arguments": {text: [text, {text: text}]}}}
    messages = (
        {"role": "assistant", "content": text, "tool_calls": [call]},
        {"role": "tool", "content": text, "name": text, "tool_call_id": text},
    )
    variables = {"tools": [{"type": "function", "function": function}], "effort": text}
    ids = encode_chat(tokenizer, messages, variables=variables)
    assert specials_in(tokenizer, ids) == ["<s>"]


def test_tools_and_variables_give_the_librarys_own_ids():
    library = fast(byte_level(), TOOLS_TEMPLATE)
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    expected = library.apply_chat_template(
        list(user("hi")), tools=tools, effort="low", return_dict=False
    )
    variables = {"tools": tools, "effort": "low"}
    assert encode_chat(Tokenizer(library), user("hi"), variables=variables) == expected


@every_kind
def test_the_end_of_a_prompt_can_be_read_again_with_its_specials(kind):
    ids = encode_chat(OURS[kind], user("a fox"))
    last = "[UNK]" if kind == "word_piece" else "assistant"
    assert OURS[kind].ending(ids).rstrip().endswith(last)
    assert "<|im_start|>" in OURS[kind].ending(ids)


def test_the_template_that_tools_are_shown_by_can_be_looked_at():
    templates = {"default": "a", "tool_use": "b"}
    for template, expected in (("a", "a"), (templates, "b"), ({"default": "a"}, "a"), (None, "")):
        assert Tokenizer(fast(byte_level(), template)).chat_template == expected


def test_a_continued_message_has_no_end_and_no_new_beginning():
    messages = (*user("hi"), {"role": "assistant", "content": "Well</s>,"})
    text = render(BYTE_LEVEL, messages, is_continued=True)
    assert text == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nWell</s>,"
    ids = encode_chat(BYTE_LEVEL, messages, is_continued=True)
    assert specials_in(BYTE_LEVEL, ids) == [*FRAME]
    assert BYTE_LEVEL.decode(ids) == "user\nhi\nassistant\nWell</s>,"


class Bare:
    """What a Tokenizer needs, without any special token."""

    all_special_ids = ()
    eos_token_id = None
    chat_template = "{{ messages[0].content }}"
    special_tokens_map = MappingProxyType({})

    def __init__(self, backend):
        self.backend_tokenizer = backend


def test_a_tokenizer_without_special_tokens_encodes_chats():
    backend = Backend(models.BPE(vocab={"a": 0, "b": 1}, merges=[]))
    assert encode_chat(Tokenizer(Bare(backend)), user("abba")) == [0, 1, 1, 0]


# -- spans


@pytest.mark.parametrize("text", ["", "Hello world", "naïve €5", "你好 😀!", "a\u0301b", "👍🏽x"])
def test_spans_slice_the_text_by_bytes(text):
    data = text.encode()
    spans = BYTE_LEVEL.spans(text, add_special_tokens=False)
    assert [span.id for span in spans] == BYTE_LEVEL.encode(text)[1:]
    for span in spans:
        assert data[span.start : span.stop].decode() == span.text
    covered = {at for span in spans for at in range(span.start, span.stop)}
    assert covered == set(range(len(data)))


def test_spans_of_the_models_own_tokens_are_empty():
    first, *others = BYTE_LEVEL.spans("hé!", add_special_tokens=True)
    assert first == TextSpan(BYTE_LEVEL.encode("")[0], "", 0, 0)
    assert others == BYTE_LEVEL.spans("hé!", add_special_tokens=False)


def test_spans_of_special_text_are_the_text():
    (span,) = BYTE_LEVEL.spans("</s>", add_special_tokens=False)
    assert (span.text, span.start, span.stop) == ("</s>", 0, 4)


# -- what ids stand for


@every_kind
def test_special_texts_are_those_of_the_special_ids_and_no_others(kind):
    tokenizer = OURS[kind]
    texts = {tokenizer.special_text(i) for i in range(tokenizer.size)}
    assert texts == {None, *SPECIALS}
    assert tokenizer.special_text(tokenizer.size) is None


@every_kind
def test_decoding_leaves_special_tokens_out(kind):
    tokenizer = OURS[kind]
    ids = LIBRARY[kind].convert_tokens_to_ids(["<s>", "a", "</s>"])
    assert tokenizer.decode(ids) == "a"


@pytest.mark.parametrize("kind", ["byte_fallback", "metaspace", "word_piece"])
def test_only_byte_level_ids_stand_for_bytes(kind):
    assert {OURS[kind].token_bytes(i) for i in range(OURS[kind].size)} == {None}


def test_the_bytes_of_all_ids_are_what_the_library_decodes():
    for token_id in range(BYTE_LEVEL.size):
        data = BYTE_LEVEL.token_bytes(token_id)
        if BYTE_LEVEL.special_text(token_id) is None:
            assert data.decode(errors="replace") == BYTE_LEVEL.decode([token_id])
    assert {BYTE_LEVEL.token_bytes(i) for i in range(BYTE_LEVEL.size)} >= {
        bytes([byte]) for byte in range(256)
    }


def test_ids_past_the_highest_have_no_bytes():
    assert BYTE_LEVEL.token_bytes(BYTE_LEVEL.size) == b""


def test_ids_after_a_gap_keep_their_bytes():
    backend = Backend(models.BPE(vocab={"a": 0, "b": 7, "<s>": 2, "</s>": 3}, merges=[]))
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<s>", "</s>"])
    tokenizer = Tokenizer(fast(backend))
    assert tokenizer.size == 8
    assert [tokenizer.token_bytes(i) for i in (0, 1, 7, 8)] == [b"a", b"", b"b", b""]


def test_the_end_token_is_the_configurations():
    assert BYTE_LEVEL.special_text(BYTE_LEVEL.eos_token_id) == "</s>"
    library = fast(byte_level())
    library.eos_token = None
    assert Tokenizer(library).eos_token_id is None


def test_our_template_is_the_one_the_tests_think_it_is():
    assert re.findall(r"<\|im_\w+\|>", TEMPLATE) == FRAME

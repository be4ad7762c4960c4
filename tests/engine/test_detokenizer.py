import itertools

import pytest
from fakes import EOS, FakeVocabulary
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny_tokenizers import byte_fallback, byte_level, fast, metaspace, word_piece

from engine.detokenizer import Detokenizer, Piece, StopStrings
from engine.tokenizer import Tokenizer

BYTE_LEVEL = Tokenizer(fast(byte_level()))
WINDOWED = {
    build.__name__: Tokenizer(fast(build())) for build in (byte_fallback, metaspace, word_piece)
}
FFFD = "\ufffd"
BYTE_FF = byte_fallback().token_to_id("<0xFF>")
CHARACTERS = st.sampled_from("the ll Hello wrd .'\n你好世界éñ€😀👍🏽\u200d\uff41")
TEXTS = st.text(CHARACTERS, max_size=12)
windowed = pytest.mark.parametrize("tokenizer", WINDOWED.values(), ids=WINDOWED.keys())


def plain_ids(tokenizer, text):
    """Encode without the special tokens of a prompt."""
    return [i for i in tokenizer.encode(text) if tokenizer.special_text(i) is None]


def without_half_a_character(data):
    """Drop the bytes at the end that a few more would make a character; by trying them.

    Python's decoder also waits for the last byte of a surrogate, which is none in UTF-8.
    """
    for size in (3, 2, 1):
        for more in itertools.chain.from_iterable(
            itertools.product((0x80, 0x90, 0xA0, 0xBF), repeat=n) for n in (1, 2, 3)
        ):
            try:
                is_one = len((data[-size:] + bytes(more)).decode(errors="surrogatepass")) == 1
            except UnicodeDecodeError:
                continue
            if is_one and len(data) >= size:
                return data[:-size]
    return data


def texts(tokenizer, prompt_ids, ids):
    detokenizer = Detokenizer(tokenizer, prompt_ids)
    return [detokenizer.push(token_id).text for token_id in ids]


# -- byte-level vocabularies


byte_level_ids = st.lists(
    st.integers(0, BYTE_LEVEL.size + 2).filter(lambda i: BYTE_LEVEL.special_text(i) is None),
    max_size=12,
)


@settings(max_examples=100)
@given(ids=byte_level_ids, prompt_ids=byte_level_ids)
def test_any_byte_level_ids_give_their_bytes_as_text_without_half_a_character(ids, prompt_ids):
    data = b"".join(BYTE_LEVEL.token_bytes(i) for i in ids)
    assert data.decode(errors="replace") == BYTE_LEVEL.decode(ids)
    joined = "".join(texts(BYTE_LEVEL, prompt_ids, ids))
    assert joined == without_half_a_character(data).decode(errors="replace")


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=12), data=st.data())
def test_byte_level_text_comes_back_cut_anywhere(text, data):
    ids = plain_ids(BYTE_LEVEL, text)
    cut = data.draw(st.integers(0, len(ids)))
    joined = "".join(texts(BYTE_LEVEL, ids[:cut], ids[cut:]))
    whole = b"".join(BYTE_LEVEL.token_bytes(i) for i in ids[cut:])
    assert joined == whole.decode(errors="replace")
    if cut == 0:
        assert joined == text


def test_a_character_of_four_tokens_comes_with_the_last():
    ids = plain_ids(BYTE_LEVEL, "𝄞")
    assert len(ids) == 4
    assert texts(BYTE_LEVEL, [], ids) == ["", "", "", "𝄞"]


def test_bytes_that_are_no_character_give_a_mark_as_soon_as_that_is_known():
    ids = [plain_ids(BYTE_LEVEL, "𝄞")[0], *plain_ids(BYTE_LEVEL, "x")]
    assert texts(BYTE_LEVEL, [], ids) == ["", FFFD + "x"]


def test_a_spelled_out_replacement_character_is_a_character():
    assert "".join(texts(BYTE_LEVEL, [], plain_ids(BYTE_LEVEL, FFFD))) == FFFD


def test_half_a_character_at_the_end_is_not_shown():
    ids = plain_ids(BYTE_LEVEL, "a𝄞")[:-1]
    detokenizer = Detokenizer(BYTE_LEVEL, [])
    for token_id in ids:
        detokenizer.push(token_id)
    assert detokenizer.flush() == ""
    assert detokenizer.text == "a"


def test_ids_past_the_vocabulary_have_no_text():
    assert texts(BYTE_LEVEL, [], [BYTE_LEVEL.size, 10**6]) == ["", ""]
    for tokenizer in WINDOWED.values():
        assert texts(tokenizer, [], [tokenizer.size, 10**6]) == ["", ""]


# -- vocabularies whose tokens need their neighbours


@windowed
@settings(max_examples=60)
@given(text=TEXTS, data=st.data())
@example(text="你好你好", data=None)
def test_joined_texts_are_the_whole_text_without_the_prompts(tokenizer, text, data):
    ids = plain_ids(tokenizer, text)
    cuts = range(len(ids) + 1) if data is None else [data.draw(st.integers(0, len(ids)))]
    for cut in cuts:
        prompt_ids, output_ids = ids[:cut], ids[cut:]
        shown = tokenizer.decode(prompt_ids)
        if shown.endswith(FFFD):
            continue  # cut inside a character
        joined = "".join(texts(tokenizer, prompt_ids, output_ids))
        assert joined == tokenizer.decode(ids)[len(shown) :]
        assert FFFD not in joined


@windowed
@given(text=TEXTS, data=st.data())
def test_special_tokens_anywhere_change_no_other_text(tokenizer, text, data):
    ids = plain_ids(tokenizer, text)
    cut = data.draw(st.integers(0, len(ids)))
    marks = data.draw(st.lists(st.tuples(st.integers(0, len(ids)), st.integers(1, 4)), max_size=9))
    prompt_ids, output_ids = ids[:cut], ids[cut:]
    expected = "".join(texts(tokenizer, prompt_ids, output_ids))
    for at, special_id in sorted(marks, reverse=True):
        assert tokenizer.special_text(special_id) is not None
        if at <= cut:
            prompt_ids.insert(at, special_id)
        else:
            output_ids.insert(at - cut, special_id)
    detokenizer = Detokenizer(tokenizer, prompt_ids)
    pieces = [detokenizer.push(token_id) for token_id in output_ids]
    assert "".join(piece.text for piece in pieces if not piece.is_special) == expected
    assert "".join(piece.visible for piece in pieces) == detokenizer.text == expected
    for token_id, piece in zip(output_ids, pieces, strict=True):
        assert piece.is_special == (tokenizer.special_text(token_id) is not None)
        if piece.is_special:
            assert (piece.text, piece.visible) == (tokenizer.special_text(token_id), "")


def test_a_space_at_the_seam_between_prompt_and_output_is_kept():
    tokenizer = WINDOWED["byte_fallback"]
    ids = plain_ids(tokenizer, "the the")
    assert "".join(texts(tokenizer, ids[:1], ids[1:])) == " the"
    assert "".join(texts(tokenizer, [], ids[:1])) == "the"


def test_a_prompt_that_ends_in_many_special_tokens_still_gives_the_seam():
    tokenizer = WINDOWED["byte_fallback"]
    ids = plain_ids(tokenizer, "the the")
    assert "".join(texts(tokenizer, [*ids[:1], *[1] * 50], ids[1:])) == " the"


def test_a_prompt_of_byte_tokens_is_not_looked_at_from_inside_a_character():
    tokenizer = WINDOWED["byte_fallback"]
    prompt_ids, output_ids = plain_ids(tokenizer, "😀😀"), plain_ids(tokenizer, "好")
    assert "".join(texts(tokenizer, prompt_ids, output_ids[1:])) == "好"


def test_a_character_that_began_in_the_prompt_comes_whole_and_swallows_nothing():
    tokenizer = WINDOWED["byte_fallback"]
    ids = plain_ids(tokenizer, "l你ll")
    prompt_ids = ids[: ids.index(plain_ids(tokenizer, "你")[1]) + 1]
    assert tokenizer.decode(prompt_ids) == "l" + FFFD
    assert texts(tokenizer, prompt_ids, ids[len(prompt_ids) :]) == ["", "你", "ll"]


def test_bytes_that_never_become_a_character_are_shown_in_the_end():
    tokenizer = WINDOWED["byte_fallback"]
    letter = plain_ids(tokenizer, "l")[-1]
    joined = "".join(texts(tokenizer, [], [*[BYTE_FF] * 30, letter]))
    assert joined == FFFD * 30 + "l"


class Counting:
    """A vocabulary that counts the ids it is asked to decode."""

    def __init__(self, tokenizer):
        self.token_bytes = tokenizer.token_bytes
        self.special_text = tokenizer.special_text
        self.pieces = tokenizer.pieces
        self.tokenizer = tokenizer
        self.num_decoded = 0

    def decode(self, token_ids):
        self.num_decoded += len(token_ids)
        return self.tokenizer.decode(token_ids)


@windowed
@pytest.mark.parametrize("kind", ["text", "nothing", "bytes"])
def test_the_work_for_a_token_does_not_grow_with_the_output(tokenizer, kind):
    letter = plain_ids(tokenizer, "a")[-1]
    token_id = {"text": letter, "nothing": tokenizer.size + 1, "bytes": BYTE_FF}[kind]
    counting = Counting(tokenizer)
    detokenizer = Detokenizer(counting, [letter] * 500)
    for _ in range(500):
        detokenizer.push(token_id)
    assert counting.num_decoded <= 500 * 40


# -- stop strings


def reference(parts, stops):
    """Read character by character: (visible text, stop); parts are pairs (text, is shown)."""
    raw, shown = "", []
    for text, is_shown in parts:
        for char in text:
            raw += char
            shown.append(is_shown)
            for stop in sorted(stops, key=len, reverse=True):
                if raw.endswith(stop):
                    start = len(raw) - len(stop)
                    return "".join(itertools.compress(raw[:start], shown)), stop
    return "".join(itertools.compress(raw, shown)), None


def run_stops(pieces, stops, *, keep_stop=False):
    """Push pairs (text, special) until a stop; return (what was shown when, stop)."""
    finder = StopStrings(stops, keep_stop=keep_stop)
    shown = []
    for text, special in pieces:
        visible, stop = finder.push(text, special)
        shown.append(visible)
        assert len(finder._raw) < max(map(len, stops)) or stop, "it keeps more than it needs"
        if stop is not None:
            return shown, stop
    shown.append(finder.flush())
    return shown, None


def splits(text):
    """Cut a text in every way."""
    for cuts in itertools.product((False, True), repeat=len(text) - 1):
        pieces = [text[0]]
        for char, is_cut in zip(text[1:], cuts, strict=True):
            if is_cut:
                pieces.append(char)
            else:
                pieces[-1] += char
        yield pieces


STOPS = ["".join(s) for n in (1, 2, 3) for s in itertools.product("ab", repeat=n)]


def test_every_short_text_in_every_split_ends_before_its_first_stop():
    stop_sets = [(a,) for a in STOPS] + list(itertools.combinations(STOPS, 2))
    for text in map("".join, itertools.product("ab", repeat=5)):
        expected = {stops: reference([(text, True)], stops) for stops in stop_sets}
        for pieces in splits(text):
            for stops in stop_sets:
                shown, stop = run_stops([(piece, "") for piece in pieces], stops)
                assert ("".join(shown), stop) == expected[stops], (pieces, stops)


stop_pieces = st.lists(
    st.tuples(st.text("abc", max_size=4), st.sampled_from(["", "", "", "a", "<b", "ca"])),
    max_size=10,
)
stop_sets = st.lists(st.text("abc<", min_size=1, max_size=5), min_size=1, max_size=4).map(tuple)


@settings(max_examples=150)
@given(pieces=stop_pieces, stops=stop_sets)
def test_stops_end_the_text_also_where_special_tokens_spell_them(pieces, stops):
    parts = [part for text, special in pieces for part in ((text, True), (special, False))]
    expected, stop = reference(parts, stops)
    shown, found = run_stops(pieces, stops)
    assert ("".join(shown), found) == (expected, stop)


@settings(max_examples=80)
@given(pieces=stop_pieces, stops=stop_sets)
def test_what_is_held_back_is_the_beginning_of_a_stop_and_no_more(pieces, stops):
    pieces = [(text, "") for text, _ in pieces]
    finder, raw, shown = StopStrings(stops), "", ""
    for text, _ in pieces:
        raw += text
        visible, stop = finder.push(text, "")
        shown += visible
        if stop is not None:
            assert raw.startswith(shown + stop)
            return
        held = raw[len(shown) :]
        assert any(stop.startswith(held) for stop in stops)
    assert shown + finder.flush() == raw


@settings(max_examples=80)
@given(pieces=stop_pieces, stops=stop_sets)
def test_keeping_the_stop_holds_nothing_back_and_ends_with_the_same_stop(pieces, stops):
    parts = [part for text, special in pieces for part in ((text, True), (special, False))]
    shown, found = run_stops(pieces, stops, keep_stop=True)
    assert found == reference(parts, stops)[1]
    assert shown[: len(pieces)] == [text for text, _ in pieces][: len(shown)]
    assert "".join(shown[len(pieces) :]) == ""


@pytest.mark.parametrize(
    ("stops", "pieces", "shown", "stop"),
    [
        (("END",), ["a", "E", "N", "D"], ["a", "", "", ""], "END"),
        (("END",), ["a", "E", "N", "d"], ["a", "", "", "ENd", ""], None),
        (("END",), ["aEND", "b"], ["a"], "END"),
        (("END",), ["aENDbc"], ["a"], "END"),
        (("END",), ["xE", "EN", "D"], ["x", "E", ""], "END"),
        (("END",), ["E"], ["", "E"], None),
        (("aab",), ["aaaa", "b"], ["aa", ""], "aab"),
        (("abab",), ["aba", "ab", "ab"], ["", "aba", ""], "abab"),
        (("b", "ab"), ["aab"], ["a"], "ab"),
        (("ab", "b"), ["aab"], ["a"], "ab"),
        (("abc", "b"), ["abc"], ["a"], "b"),
        (("\n\n",), ["a\n", "b\n", "\n"], ["a", "\nb", ""], "\n\n"),
        (("é",), ["caf", "é!"], ["caf", ""], "é"),
    ],
)
def test_stop_strings_by_example(stops, pieces, shown, stop):
    assert run_stops([(piece, "") for piece in pieces], stops) == (shown, stop)


def test_before_it_is_looked_for_a_stop_is_text():
    finder = StopStrings(("ab",))
    assert finder.push("xab", "", is_stopping=False) == ("xab", None)
    assert finder.push("ab", "", is_stopping=True) == ("", "ab")


@pytest.mark.parametrize("keep_stop", [False, True])
def test_a_stop_that_began_before_it_was_looked_for_is_found(keep_stop):
    finder = StopStrings(("ab",), keep_stop=keep_stop)
    shown, stop = finder.push("xa", "", is_stopping=False)
    assert stop is None
    more, stop = finder.push("bc", "", is_stopping=True)
    assert (shown + more, stop) == ("xabc" if keep_stop else "x", "ab")


# -- the whole detokenizer


def test_stop_strings_are_found_in_text_made_of_bytes():
    detokenizer = Detokenizer(BYTE_LEVEL, [], ("好",))
    pieces = [detokenizer.push(token_id) for token_id in plain_ids(BYTE_LEVEL, "你好")]
    assert [piece.stop for piece in pieces][-1] == "好"
    assert detokenizer.text == "你"
    assert "".join(piece.text for piece in pieces) == "你好"


def test_a_piece_has_raw_text_and_what_may_be_shown():
    detokenizer = Detokenizer(FakeVocabulary(), [], ("ab",))
    assert detokenizer.push(ord("a")) == Piece("a", "", False, None)
    assert detokenizer.push(2) == Piece("<|im_end|>", "a", True, None)
    assert detokenizer.push(ord("b")) == Piece("b", "b", False, None)
    assert detokenizer.text == "ab"


def test_the_text_of_a_special_token_can_be_a_stop():
    detokenizer = Detokenizer(FakeVocabulary(), [], ("</s>",))
    detokenizer.push(97)
    assert detokenizer.push(EOS) == Piece("</s>", "", True, "</s>")
    assert detokenizer.text == "a"


def test_what_is_held_is_set_free_once_at_the_end():
    detokenizer = Detokenizer(FakeVocabulary(), [], ("abc",))
    for char in "xab":
        detokenizer.push(ord(char))
    assert detokenizer.text == "x"
    assert (detokenizer.flush(), detokenizer.flush()) == ("ab", "")
    assert detokenizer.text == "xab"


def test_without_stop_strings_there_is_nothing_to_flush():
    detokenizer = Detokenizer(FakeVocabulary(), [])
    detokenizer.push(97)
    assert detokenizer.flush() == ""

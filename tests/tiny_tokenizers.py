"""Tiny tokenizers of the four common kinds, built in memory from the tokenizers library's parts."""

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

SPECIALS = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CORPUS = [
    "Hello world, how are you today? I am fine, thanks; and you?",
    "the quick brown fox jumps over the lazy dog",
    "def f(x):\n    return x + 1\n\n# naïve café €5 → 你好 世界 😀👍🏽",
]


def byte_level() -> Tokenizer:
    """GPT-2's kind: every id stands for fixed bytes."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=330, initial_alphabet=alphabet, special_tokens=SPECIALS, show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    backend.add_tokens([AddedToken("<think>", normalized=False), AddedToken("a b", special=False)])
    return backend


def byte_fallback() -> Tokenizer:
    """Llama 2's kind: pieces with a mark for the space, and a token for each byte beside them."""
    pieces = ["<unk>", *SPECIALS, *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    pieces += sorted(set("".join(CORPUS)) - {" ", "你", "好", "世", "界", "😀", "👍", "🏽", "€"})
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he"), ("l", "l"), ("▁", "▁")]
    pieces += [left + right for left, right in merges]
    backend = Tokenizer(
        models.BPE(
            vocab={piece: i for i, piece in enumerate(dict.fromkeys(pieces))},
            merges=merges,
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1, right=0),
        ]
    )
    backend.add_special_tokens(SPECIALS)
    return backend


def metaspace() -> Tokenizer:
    """T5's kind: a unigram model over pieces with a mark for the space."""
    characters = sorted(set("".join(CORPUS)) - {" "})
    pieces = ["<unk>", *SPECIALS, "▁", "▁the", "▁H", "ell", "o", "▁wor", "ld", *characters]
    scores = [(piece, -float(i)) for i, piece in enumerate(dict.fromkeys(pieces))]
    backend = Tokenizer(models.Unigram(scores, unk_id=0, byte_fallback=False))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    backend.add_special_tokens(SPECIALS)
    return backend


def word_piece() -> Tokenizer:
    """BERT's kind: words, and pieces that continue them."""
    words = ["hello", "world", "the", "fox", "do", "n", "t", "'", ".", ",", "?", "un", "a"]
    pieces = ["[UNK]", *SPECIALS, *words, "##aff", "##able", "##s", "##t", "##'", "##."]
    backend = Tokenizer(
        models.WordPiece(
            {piece: i for i, piece in enumerate(pieces)},
            unk_token="[UNK]",
            max_input_chars_per_word=100,
        )
    )
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.add_special_tokens(SPECIALS)
    return backend


def fast(backend: Tokenizer, template: str | None = TEMPLATE) -> PreTrainedTokenizerFast:
    """Wrap a backend as the library does; encoding a prompt puts <s> in front."""
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", backend.token_to_id("<s>"))]
    )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        clean_up_tokenization_spaces=False,
    )
    wrapped.chat_template = template
    return wrapped

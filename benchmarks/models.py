"""Random models of a given shape, to measure with: nothing is downloaded, nothing makes sense.

    python benchmarks/models.py --models-dir DIR [qwen-0.5b llama-30m]

Weights depend on the seed only. The tokenizer is the built-in model's, filled up to the vocabulary
with tokens that no merge reaches. The embedding's rows of special tokens, of ids without a token
and of tokens that are no whole text are zero: their logits are 0 and greedy decoding never picks
them, so no answer ends early and every token shows as text. `bench_words.json` lists words of one
token each, of which prompts of an exact length are made.
"""

import json
import random
from argparse import ArgumentParser
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedTokenizerFast,
)

import engine

BUILT_IN_MODEL = Path(engine.__file__).parent / "demo"
_SPACE = "\u0120"
"""How a byte-level vocabulary writes a space."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a random model looks like; embeddings are tied."""

    model_type: str
    vocab_size: int
    num_tokens: int
    """Of the vocabulary; the ids above them stand for nothing."""
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    intermediate_size: int
    max_position: int
    rope_theta: float

    def config(self, eos_token_id: int) -> Any:
        """Give the configuration as transformers wants it."""
        return AutoConfig.for_model(
            self.model_type,
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_layers,
            num_attention_heads=self.num_heads,
            num_key_value_heads=self.num_kv_heads,
            intermediate_size=self.intermediate_size,
            max_position_embeddings=self.max_position,
            rope_parameters={"rope_type": "default", "rope_theta": self.rope_theta},
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=eos_token_id,
            pad_token_id=eos_token_id,
        )


SHAPES = {
    "qwen-0.5b": Shape(
        model_type="qwen2",
        vocab_size=151_936,
        num_tokens=151_646,
        hidden_size=896,
        num_layers=24,
        num_heads=14,
        num_kv_heads=2,
        intermediate_size=4864,
        max_position=32_768,
        rope_theta=1e6,
    ),
    "llama-30m": Shape(
        model_type="llama",
        vocab_size=32_000,
        num_tokens=32_000,
        hidden_size=384,
        num_layers=12,
        num_heads=6,
        num_kv_heads=2,
        intermediate_size=1024,
        max_position=8192,
        rope_theta=1e4,
    ),
}


def make_model(name: str, models_dir: Path) -> Path:
    """Write the model unless it is there; return its directory."""
    path = models_dir / name
    if (path / "bench_words.json").exists():
        return path
    path.mkdir(parents=True, exist_ok=True)
    shape = SHAPES[name]
    tokenizer = _make_tokenizer(shape.num_tokens)
    tokenizer.save_pretrained(path)
    _make_weights(shape, tokenizer).save_pretrained(path)
    words = _single_token_words(tokenizer.backend_tokenizer)
    (path / "bench_words.json").write_text(json.dumps(words))  # last: it says that all is there
    return path


def _make_tokenizer(num_tokens: int) -> Any:
    built_in = PreTrainedTokenizerFast.from_pretrained(BUILT_IN_MODEL)
    data = json.loads(built_in.backend_tokenizer.to_str())
    vocabulary = data["model"]["vocab"]
    size = built_in.backend_tokenizer.get_vocab_size(with_added_tokens=True)
    vocabulary |= {f"{_SPACE}filler{number}": number for number in range(size, num_tokens)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(data)),
        eos_token=built_in.eos_token,
        pad_token=built_in.eos_token,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = built_in.chat_template
    return tokenizer


def _make_weights(shape: Shape, tokenizer: Any) -> Any:
    torch.manual_seed(1)
    config = shape.config(tokenizer.eos_token_id)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    mute = torch.tensor(_mute_ids(shape, tokenizer.backend_tokenizer))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(".bias"):
                weight.normal_(0, 0.02)
        model.get_input_embeddings().weight[mute] = 0
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.eos_token_id
    )
    return model


def _mute_ids(shape: Shape, backend: Tokenizer) -> list[int]:
    """List the ids that must never be picked."""
    special = {i for i, token in backend.get_added_tokens_decoder().items() if token.special}
    alone = [[token_id] for token_id in range(shape.num_tokens)]
    texts = backend.decode_batch(alone, skip_special_tokens=False)
    broken = {i for i, text in enumerate(texts) if not text or "\ufffd" in text}
    return sorted(special | broken | set(range(shape.num_tokens, shape.vocab_size)))


def _single_token_words(backend: Tokenizer) -> list[str]:
    words = [
        token[1:]
        for token in backend.get_vocab()
        if token.startswith(_SPACE) and token.isalpha() and token[1:].isascii()
    ]
    words = sorted(word for word in words if len(word) > 2 and len(backend.encode(f" {word}")) == 1)
    chain = "".join(f" {word}" for word in random.Random(1).choices(words, k=400))
    assert len(backend.encode(chain)) == 400, "words are not one token each when they follow others"
    return words


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--models-dir", type=Path, required=True, help="where to write them")
    parser.add_argument("--json", type=Path, help="write the paths to this file")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SHAPES)} [all]")
    args = parser.parse_args()
    for name in args.names:
        if name not in SHAPES:
            parser.error(f"there is no shape {name!r}")
    paths = {name: str(make_model(name, args.models_dir)) for name in args.names or SHAPES}
    print("\n".join(paths.values()))
    if args.json is not None:
        args.json.write_text(json.dumps(paths, indent=2))


if __name__ == "__main__":
    main()

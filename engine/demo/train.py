"""Train the demo model on the corpus, on a plain CPU, and write it in the Hugging Face format.

    python engine/demo/train.py --out DIR [--steps N]

A run that was stopped goes on from its checkpoint and its tokenizer in DIR. Knows
nothing of the server.
"""

import argparse
import json
import math
import random
import time
from pathlib import Path

import corpus
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

VOCAB = 2560
CONTEXT = 4096
ROW = 256  # tokens in a short row
ROWS = 16  # short rows in a batch; a long row fills a batch alone
LONG_EVERY = 10  # steps from one batch with a long row to the next
PEAK_RATE = 3e-3
WARMUP = 150  # steps
WEIGHT_DECAY = 0.1
THREADS = 2
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""

Encoded = tuple[list[int], list[bool]]  # token ids, and which of them the model learns to write


def main() -> None:
    """Train, with a line of progress every 50 steps, then export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=4650)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(THREADS)
    torch.manual_seed(corpus.SEED)

    short, long = list(corpus.documents()), list(corpus.long_documents())
    tokenizer = _tokenizer(short, args.out / "tokenizer.json")
    model = LlamaForCausalLM(config())
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
    train(model, encode(tokenizer, short), encode(tokenizer, long), args.steps, args.out)
    export(model, tokenizer, args.out)


def config() -> LlamaConfig:
    """Choose a shape that fits into eight megabytes."""
    return LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        bos_token_id=corpus.SPECIALS.index(corpus.END_OF_TEXT),
        eos_token_id=corpus.SPECIALS.index(corpus.END),
        pad_token_id=corpus.SPECIALS.index(corpus.END_OF_TEXT),
    )


def _tokenizer(documents: list[corpus.Document], path: Path) -> Tokenizer:
    """Train the tokenizer, or take the one of the run that goes on."""
    if not path.exists():
        train_tokenizer(documents).save(str(path))
    return Tokenizer.from_file(str(path))


def train_tokenizer(documents: list[corpus.Document]) -> Tokenizer:
    """Learn byte pairs from the corpus; every digit stays a token of its own."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=list(corpus.SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = ("".join(text for text, _ in document) for document in documents[::3])
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, documents: list[corpus.Document]) -> list[Encoded]:
    """Turn documents into token ids with marks on what is learned."""
    texts = [text for document in documents for text, _ in document]
    ids = iter([encoding.ids for encoding in tokenizer.encode_batch(texts)])
    encoded = []
    for document in documents:
        pieces = [(next(ids), is_learned) for _, is_learned in document]
        tokens = [token for piece, _ in pieces for token in piece]
        marks = [is_learned for piece, is_learned in pieces for _ in piece]
        encoded.append((tokens, marks))
    return encoded


def pack(rng: random.Random, documents: list[Encoded], row: int) -> list[Encoded]:
    """Shuffle the documents and fill rows with them.

    Each row begins with a document; one that a row cuts off begins the next row, whole.
    """
    rows: list[Encoded] = []
    tokens: list[int] = []
    marks: list[bool] = []
    for ids, learned in rng.sample(documents, len(documents)):
        tokens, marks = tokens + ids, marks + learned
        if len(tokens) > row:
            rows.append((tokens[: row + 1], marks[: row + 1]))
            tokens, marks = (ids, learned) if len(ids) <= row else ([], [])
    return rows


def train(
    model: LlamaForCausalLM, short: list[Encoded], long: list[Encoded], steps: int, out: Path
) -> None:
    """Minimise the loss on the learned tokens; Muon moves the matrices, AdamW all else."""
    print(
        f"{sum(len(t) for t, _ in short):,} + {sum(len(t) for t, _ in long):,} tokens", flush=True
    )
    optimizers = _optimizers(model)
    first = _resume(model, optimizers, out)
    batches = _batches(short, long, steps)
    started, mean = time.monotonic(), 0.0
    for step, batch in enumerate(batches):
        if step < first:
            continue
        loss = _loss(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = _rate(step, steps)
            optimizer.step()
            optimizer.zero_grad()
        mean = loss.item() if step == first else 0.98 * mean + 0.02 * loss.item()
        if step % 50 == 0 or step == steps - 1:
            speed = (step - first + 1) * ROW * ROWS / (time.monotonic() - started)
            print(f"step {step} loss {mean:.4f} {speed:,.0f} tokens/s", flush=True)
        if step % 250 == 249:
            _save(model, optimizers, step + 1, out)


def export(model: LlamaForCausalLM, tokenizer: Tokenizer, out: Path) -> None:
    """Write the weights as bfloat16 and everything that a loader looks for."""
    model.bfloat16().save_pretrained(out)
    ids = {special: index for index, special in enumerate(corpus.SPECIALS)}
    GenerationConfig(
        bos_token_id=ids[corpus.END_OF_TEXT],
        eos_token_id=[ids[corpus.END], ids[corpus.END_OF_TEXT]],
        pad_token_id=ids[corpus.END_OF_TEXT],
    ).save_pretrained(out)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=corpus.END_OF_TEXT,
        eos_token=corpus.END,
        pad_token=corpus.END_OF_TEXT,
        additional_special_tokens=[corpus.START],
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(out)
    sizes = {path.name: path.stat().st_size for path in sorted(out.glob("*.*"))}
    print(json.dumps(sizes, indent=2))


def _optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Give the matrices of the layers to Muon, the embedding and the norms to AdamW.

    Muon (https://kellerjordan.github.io/posts/muon) learns more from each token than AdamW alone.
    """
    matrices = [p for p in model.model.layers.parameters() if p.dim() == 2]
    norms = [p for p in model.parameters() if p.dim() == 1]
    embedding = {"params": [model.lm_head.weight], "weight_decay": WEIGHT_DECAY}
    groups = [embedding, {"params": norms, "weight_decay": 0.0}]
    return [
        torch.optim.Muon(matrices, weight_decay=WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True),
    ]


def _batches(short: list[Encoded], long: list[Encoded], steps: int) -> list[list[Encoded]]:
    """Plan every batch: short rows, and now and then a long one; both anew after each pass."""
    rng = random.Random(corpus.SEED)
    batches: list[list[Encoded]] = []
    short_rows: list[Encoded] = []
    long_rows: list[Encoded] = []
    for step in range(steps):
        if step % LONG_EVERY == LONG_EVERY - 1:
            long_rows = long_rows or pack(rng, long, ROW * ROWS)
            batches.append([long_rows.pop()])
        else:
            if len(short_rows) < ROWS:
                short_rows = pack(rng, short, ROW)
            batches.append([short_rows.pop() for _ in range(ROWS)])
    return batches


def _loss(model: LlamaForCausalLM, batch: list[Encoded]) -> torch.Tensor:
    """Compute the mean cross entropy of the learned tokens."""
    tokens = torch.tensor([row for row, _ in batch])  # [rows, row + 1]
    marks = torch.tensor([row for _, row in batch])[:, 1:]  # [rows, row]
    # On a CPU plain attention is the faster one for short rows, and ruinous for long ones.
    model.set_attn_implementation("eager" if len(batch) == ROWS else "sdpa")
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.model(input_ids=tokens[:, :-1], use_cache=False).last_hidden_state
        logits = model.lm_head(hidden[marks])  # [learned, vocab]
    return torch.nn.functional.cross_entropy(logits.float(), tokens[:, 1:][marks])


def _rate(step: int, steps: int) -> float:
    """Give the learning rate: a linear warm-up, then a cosine to zero."""
    done = max(0, step - WARMUP) / max(1, steps - WARMUP)
    return PEAK_RATE * min(1.0, (step + 1) / WARMUP) * 0.5 * (1 + math.cos(math.pi * done))


def _save(
    model: LlamaForCausalLM, optimizers: list[torch.optim.Optimizer], step: int, out: Path
) -> None:
    """Replace the checkpoint in one move."""
    states = [optimizer.state_dict() for optimizer in optimizers]
    state = {"model": model.state_dict(), "optimizers": states, "step": step}
    torch.save(state, out / "checkpoint.new")
    (out / "checkpoint.new").replace(out / "checkpoint.pt")


def _resume(model: LlamaForCausalLM, optimizers: list[torch.optim.Optimizer], out: Path) -> int:
    """Load the checkpoint, if there is one, and give the step to go on with."""
    path = out / "checkpoint.pt"
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return int(state["step"])


if __name__ == "__main__":
    main()

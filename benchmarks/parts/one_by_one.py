"""OneByOne: transformers' own generate, one request after the other, as people begin."""

from collections.abc import Sequence
from pathlib import Path

import torch
from ceilings import use_all_cores
from transformers import AutoModelForCausalLM


class OneByOne:
    """A model as the library loads it, greedy; in the dtype of its weights."""

    def __init__(self, model_dir: Path) -> None:
        self._model = AutoModelForCausalLM.from_pretrained(model_dir, dtype="auto").eval()

    def serve(self, prompts: Sequence[Sequence[int]], num_tokens: int) -> int:
        """Answer each prompt with so many tokens; return how many there were in all."""
        use_all_cores()  # torch keeps that number for each thread
        return sum(self._answer(prompt, num_tokens) for prompt in prompts)

    def _answer(self, prompt: Sequence[int], num_tokens: int) -> int:
        ids = torch.tensor([list(prompt)])
        with torch.inference_mode():
            whole = self._model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=num_tokens,
                min_new_tokens=num_tokens,
            )
        return int(whole.shape[1]) - len(prompt)

"""Penalties: what changes a row's logits before any draw; knows one row and no batch.

Repetition, frequency and presence penalties, logit bias, watermark, and the mask on end tokens.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from engine.sampling_params import SamplingParams

_WATERMARK_HASH_KEY = 15485863
"""TGI's, https://github.com/huggingface/text-generation-inference, utils/watermark.py."""


class Penalties:
    """Applies to one row's logits what its parameters and its tokens so far ask for."""

    def __init__(
        self,
        vocab_size: int,
        eos_token_ids: tuple[int, ...],
        watermark_gamma: float,
        watermark_delta: float,
        device: torch.device,
    ) -> None:
        self._vocab_size = vocab_size
        self._eos_token_ids = list(eos_token_ids)
        self._num_green = int(vocab_size * watermark_gamma)
        self._watermark_delta = watermark_delta
        self._generator = torch.Generator()
        self._device = device

    def concern(self, params: SamplingParams, num_output_tokens: int) -> bool:
        """Tell whether `apply` would change anything."""
        return (
            params.has_penalty
            or bool(params.logit_bias)
            or params.watermark
            or self._is_too_short(params, num_output_tokens)
        )

    def apply(
        self,
        logits: torch.Tensor,
        params: SamplingParams,
        token_ids: NDArray[np.int64],
        num_prompt_tokens: int,
    ) -> None:
        """Change `logits` [vocab], float32, in place; `token_ids` is prompt and output so far."""
        if params.repetition_penalty != 1.0 or params.frequency_share_penalty != 0.0:
            self._penalise_history(logits, params, token_ids)
        if params.frequency_penalty != 0.0 or params.presence_penalty != 0.0:
            self._penalise_output(logits, params, token_ids[num_prompt_tokens:])
        if params.logit_bias:
            ids, biases = zip(*params.logit_bias, strict=True)
            logits.index_add_(0, self._tensor(ids), self._tensor(biases, torch.float32))
        if params.watermark:
            logits.index_add_(0, *self._green_list(int(token_ids[-1])))
        if self._is_too_short(params, len(token_ids) - num_prompt_tokens):
            logits[self._eos_token_ids] = -torch.inf

    def _is_too_short(self, params: SamplingParams, num_output_tokens: int) -> bool:
        return num_output_tokens < params.min_new_tokens and bool(self._eos_token_ids)

    def _penalise_history(
        self, logits: torch.Tensor, params: SamplingParams, token_ids: NDArray[np.int64]
    ) -> None:
        ids, counts = self._count(token_ids)
        picked = logits[ids]
        penalty = params.repetition_penalty
        picked = torch.where(picked < 0, picked * penalty, picked / penalty)
        picked -= params.frequency_share_penalty * counts / len(token_ids)
        logits[ids] = picked

    def _penalise_output(
        self, logits: torch.Tensor, params: SamplingParams, token_ids: NDArray[np.int64]
    ) -> None:
        ids, counts = self._count(token_ids)
        logits[ids] -= params.frequency_penalty * counts + params.presence_penalty

    def _count(self, token_ids: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        """Give the different ids and how often each occurs, in float32."""
        ids, counts = np.unique(token_ids, return_counts=True)
        # A model may embed more ids than its head can say.
        is_known = ids < self._vocab_size
        return self._tensor(ids[is_known]), self._tensor(counts[is_known], torch.float32)

    def _green_list(self, previous_id: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Give the ids that the token before favours, and what to add to each.

        Kirchenbauer et al., https://arxiv.org/abs/2301.10226, seeded as TGI does: the first
        gamma share of a permutation of the vocabulary, from a generator seeded by the token
        before. Always the CPU's generator, so that one detector fits every device.
        """
        self._generator.manual_seed(_WATERMARK_HASH_KEY * previous_id)
        permutation = torch.randperm(self._vocab_size, generator=self._generator)
        green = permutation[: self._num_green].to(self._device)
        return green, torch.full(green.shape, self._watermark_delta, device=self._device)

    def _tensor(self, numbers: object, dtype: torch.dtype = torch.int64) -> torch.Tensor:
        return torch.as_tensor(numbers, dtype=dtype, device=self._device)

"""Norms and gated feed-forwards among the library's modules: which become kernels, and how well."""

import pytest
import torch
from tiny_models import FAMILIES, load_tiny, native_kernels, save_model, save_tiny_model
from torch import nn
from torch.nn.functional import gelu, relu, silu
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from engine.compute.gates import GatedFeedForward, rewrite_gates
from engine.compute.kernels.reference import Reference
from engine.compute.model import KernelsDiffer
from engine.compute.norms import Norm, rewrite_norms
from engine.config import EngineConfig
from engine.load import _load_model

FUSED = {
    "gemma2": (9, 2),
    "gemma3": (43, 7),
    "phi3": (5, 2),
    "olmo2": (9, 2),
    "cohere": (0, 2),
    "granite": (5, 2),
    "mixtral": (5, 0),
    "qwen3-moe": (9, 0),
    "gpt-oss": (5, 0),
    "deepseek-v3": (9, 2),
    "gpt-neox": (0, 0),
    "starcoder2": (0, 0),
}
"""Norms and gated feed-forwards of a tiny model of each family."""


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(params=[torch.float32, torch.bfloat16])
def kernels(request):
    return Reference(torch.float32) if request.param is torch.float32 else native_kernels()


@pytest.mark.parametrize("family", sorted(FUSED))
def test_kernels_take_the_place_of_what_they_compute(family, tmp_path):
    model = load_tiny(save_tiny_model(family, tmp_path), kernels=Reference(torch.float32))
    modules = list(model._module.modules())
    counts = [sum(isinstance(m, kind) for m in modules) for kind in (Norm, GatedFeedForward)]
    assert tuple(counts) == FUSED[family]


@pytest.mark.parametrize("family", ["gemma2", "phi3", "olmo2"])
def test_in_bfloat16_the_fused_model_is_near_the_librarys(family, tmp_path):
    settings = {**FAMILIES[family][1], "hidden_size": 128, "intermediate_size": 200}
    settings["initializer_range"] = 0.2
    path = save_model(family, settings, tmp_path / family)
    ids = torch.arange(24)
    with torch.inference_mode():
        models = [load_tiny(path, "bfloat16", kernels=k) for k in (native_kernels(), None)]
        for model in models:
            model.attention.detach()
        fused, plain = (model.forward(ids, ids, ids).values.float() for model in models)
    assert any(isinstance(module, Norm) for module in models[0]._module.modules())
    assert (fused - plain).norm() < 0.02 * plain.norm()


class EpsilonOutside(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width))
        self.eps = 1e-5

    def forward(self, x):
        root = x.float().square().mean(-1, keepdim=True).sqrt() + self.eps
        return self.weight * (x.float() / root).to(x.dtype)


class Twice(LlamaRMSNorm):
    def forward(self, hidden_states):
        return 2 * super().forward(hidden_states)


class Gated(LlamaRMSNorm):
    def forward(self, hidden_states, gate=None):
        return super().forward(hidden_states if gate is None else hidden_states * gate)


def in_model(module, dtype):
    """Make a model of one module, its numbers random."""
    for number in module.parameters():
        nn.init.normal_(number, std=0.3)
    return nn.ModuleDict({"part": module.to(dtype)}).requires_grad_(False)


@pytest.mark.parametrize("make", [LlamaRMSNorm, Gemma2RMSNorm, lambda n: LlamaRMSNorm(n, eps=1e-3)])
def test_a_norm_of_any_family_is_the_kernels(make, kernels):
    model = in_model(make(96), kernels.dtype)
    x = (torch.randn(2, 3, 96) * torch.tensor([1e-3, 1.0, 30.0])[:, None]).to(kernels.dtype)
    expected = model["part"](x)
    assert rewrite_norms(model, kernels) == 1
    assert isinstance(model["part"], Norm)
    torch.testing.assert_close(model["part"](x), expected, rtol=0.016, atol=0)
    torch.testing.assert_close(
        model["part"](x.transpose(0, 1)), expected.transpose(0, 1), rtol=0.016, atol=0
    )


@pytest.mark.parametrize(
    "module", [nn.LayerNorm(96, bias=False), EpsilonOutside(96), Twice(96), Gated(96)]
)
def test_what_is_another_norm_stays(module, kernels):
    assert rewrite_norms(in_model(module, kernels.dtype), kernels) == 0


class FeedForward(nn.Module):
    """With parts named by nobody's convention, and gate and factor apart or in one linear."""

    def __init__(self, act, *, is_joined=False, is_swapped=False, factor=1.0):
        super().__init__()
        self.act, self.is_joined, self.is_swapped, self.factor = act, is_joined, is_swapped, factor
        self.w3 = nn.Linear(40, 64, bias=False)
        self.w1 = nn.Linear(64, 80) if is_joined else nn.Linear(64, 40)
        if not is_joined:
            self.w2 = nn.Linear(64, 40)

    def forward(self, x):
        a, b = self.w1(x).chunk(2, -1) if self.is_joined else (self.w1(x), self.w2(x))
        gate, factor = (b, a) if self.is_swapped else (a, b)
        return self.w3(self.act(gate) * factor * self.factor)


def gelu_tanh(x):
    return gelu(x, approximate="tanh")


@pytest.mark.parametrize("act", [silu, gelu_tanh])
@pytest.mark.parametrize("is_joined", [False, True])
@pytest.mark.parametrize("is_swapped", [False, True])
def test_a_gated_feed_forward_is_found_by_what_it_computes(act, is_joined, is_swapped, kernels):
    module = FeedForward(act, is_joined=is_joined, is_swapped=is_swapped)
    model = in_model(module, kernels.dtype)
    x = torch.randn(2, 5, 64).to(kernels.dtype)
    expected = model["part"](x).float()
    assert rewrite_gates(model, kernels) == 1
    assert isinstance(model["part"], GatedFeedForward)
    got = model["part"](x).float()
    assert (got - expected).norm() < (1e-5 if kernels.dtype is torch.float32 else 0.02) * got.norm()


@pytest.mark.parametrize("module", [FeedForward(relu), FeedForward(silu, factor=1.1)])
def test_what_is_gated_otherwise_stays(module, kernels):
    assert rewrite_gates(in_model(module, kernels.dtype), kernels) == 0


def test_a_model_that_kernels_change_is_loaded_without_them(tmp_path, monkeypatch, caplog):
    path = save_tiny_model("gemma2", tmp_path)
    kernels = Reference(torch.float32)
    monkeypatch.setattr(kernels, "linear", lambda x, weight, out, *_: out.zero_())
    with pytest.raises(KernelsDiffer, match="do not give what each gives alone"):
        load_tiny(path, kernels=kernels)
    model = _load_model(EngineConfig(model=str(path), dtype="float32"), kernels)
    assert "without the C++ kernels, more slowly: Gemma2ForCausalLM" in caplog.text
    assert not any(isinstance(module, Norm) for module in model._module.modules())

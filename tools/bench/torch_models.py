"""The models that `train.py` races against: a GPT as a PyTorch user would write it, and transformers' Llama.

The GPT: pre-LN, learned positions, tanh-GELU, biases, tied head, fused attention.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


class Layer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm_mixer, self.norm_ff = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        B, L, D = x.shape
        q, k, v = (y.view(B, L, self.heads, -1).transpose(1, 2) for y in self.qkv(self.norm_mixer(x)).split(D, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(B, L, D))
        return x + self.down(F.gelu(self.up(self.norm_ff(x)), approximate="tanh"))


class GPT(nn.Module):
    def __init__(self, vocab: int, length: int, width: int, heads: int, layers: int):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocab, width), nn.Embedding(length, width)
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        x = self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]
        for layer in self.layers:
            x = layer(x)
        logits = self.norm(x) @ self.tokens.weight.T
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))


class Llama(nn.Module):
    """transformers' own, with its fused attention."""

    def __init__(self, case: Any):
        super().__init__()
        from transformers import LlamaConfig, LlamaForCausalLM

        config = LlamaConfig(
            vocab_size=case.vocab,
            hidden_size=case.width,
            intermediate_size=case.hidden,
            num_hidden_layers=case.layers,
            num_attention_heads=case.heads,
            num_key_value_heads=case.kv_heads,
            max_position_embeddings=case.length,
            rms_norm_eps=1e-6,
            tie_word_embeddings=False,
            use_cache=False,
        )
        config._attn_implementation = "sdpa"
        self.model = LlamaForCausalLM(config)

    def forward(self, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        logits = self.model(input_ids=tokens).logits
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.reshape(-1))


def build(case: Any, params: Mapping[str, Any]) -> nn.Module:
    """The model of a case with the weights of a Decoder's parameters (NumPy arrays)."""
    if case.kv_heads is not None:
        llama = Llama(case)
        _load_llama(llama, params)
        return llama
    gpt = GPT(case.vocab, case.length, case.width, case.heads, case.layers)
    _load_gpt(gpt, params)
    return gpt


def _load_llama(llama: Any, params: Mapping[str, Any]) -> None:
    model, D = llama.model, params["embedding"].shape[1]
    _put(model.model.embed_tokens.weight, params["embedding"])
    _put(model.lm_head.weight, params["unembedding"])
    _put(model.model.norm.weight, params["norm"]["scale"])
    for i, layer in enumerate(model.model.layers):
        one = _at(params["blocks"]["0"], i)
        _put(layer.input_layernorm.weight, one["norms"]["mixer"]["scale"])
        _put(layer.post_attention_layernorm.weight, one["norms"]["ff"]["scale"])
        for name, part in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj")):
            _put(getattr(layer.self_attn, part).weight, one["mixer"][name]["weight"].reshape(D, -1).T)
        _put(layer.self_attn.o_proj.weight, one["mixer"]["out"]["weight"].reshape(D, D).T)
        for name in ("gate", "up", "down"):
            _put(getattr(layer.mlp, f"{name}_proj").weight, one["ff"][name]["weight"].T)


def _load_gpt(model: Any, params: Mapping[str, Any]) -> None:
    block, D = params["blocks"]["0"], params["embedding"].shape[1]
    _put(model.tokens.weight, params["embedding"])
    _put(model.positions.weight, params["position"]["table"])
    _put_norm(model.norm, params["norm"])
    for i, layer in enumerate(model.layers):
        one = _at(block, i)
        mixer, ff = one["mixer"], one["ff"]
        _put_norm(layer.norm_mixer, one["norms"]["mixer"])
        _put_norm(layer.norm_ff, one["norms"]["ff"])
        qkv = [mixer[name] for name in ("query", "key", "value")]
        _put(layer.qkv.weight, np.concatenate([part["weight"].reshape(D, D).T for part in qkv]))
        _put(layer.qkv.bias, np.concatenate([part["bias"].reshape(D) for part in qkv]))
        _put(layer.out.weight, mixer["out"]["weight"].reshape(D, D).T)
        _put(layer.out.bias, mixer["out"]["bias"])
        for name, part in (("up", layer.up), ("down", layer.down)):
            _put(part.weight, ff[name]["weight"].T)
            _put(part.bias, ff[name]["bias"])


def _put(tensor: torch.Tensor, value: np.ndarray) -> None:
    if tensor.shape != value.shape:
        raise ValueError(f"a tensor of shape {tuple(tensor.shape)} can't take weights of shape {value.shape}")
    tensor.data.copy_(torch.from_numpy(np.array(value)))


def _put_norm(norm: Any, params: Mapping[str, np.ndarray]) -> None:
    _put(norm.weight, params["scale"])
    _put(norm.bias, params["bias"])


def _at(tree: Any, index: int) -> Any:
    return {k: _at(v, index) for k, v in tree.items()} if isinstance(tree, dict) else tree[index]

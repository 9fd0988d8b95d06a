"""The real peft library over the tiny models: what it loads, and what it answers."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ml_pipeline_tests.adapters.tiny_models import TOKENS, FloatArray, TinyModel


def library(name: str) -> Any:
    """A package of the extra `peft`; without it the test is skipped, or fails where CI=true must have it."""
    if os.environ.get("CI", "").lower() == "true":
        return importlib.import_module(name)
    return pytest.importorskip(name, reason="the extra `peft` is not installed: run `make peft`")


_MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_NO_CACHE = {"use_cache": False, "attn_implementation": "eager"}


def transformers_model(base: TinyModel) -> Any:
    """The tiny model as transformers has it, with the same float32 weights."""
    torch, transformers = library("torch"), library("transformers")
    args = base.args
    common = {
        "hidden_size": args.hidden_size,
        "num_hidden_layers": args.num_hidden_layers,
        "intermediate_size": args.intermediate_size,
        "num_attention_heads": args.num_attention_heads,
        "num_key_value_heads": args.num_key_value_heads,
        "rms_norm_eps": args.rms_norm_eps,
        "vocab_size": args.vocab_size,
        "rope_parameters": {"rope_type": "default", "rope_theta": args.rope_theta},
        "tie_word_embeddings": "lm_head.weight" not in base.weights,
        "max_position_embeddings": 512,
        **_NO_CACHE,
    }
    if base.architecture == "qwen3moe":
        common |= {
            "head_dim": args.head_dim,
            "num_experts": args.num_experts,
            "num_experts_per_tok": args.num_experts_per_tok,
            "moe_intermediate_size": args.moe_intermediate_size,
            "norm_topk_prob": True,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
        }
        model = transformers.Qwen3MoeForCausalLM(transformers.Qwen3MoeConfig(**common))
    else:
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**common))
    weights = {name: torch.from_numpy(np.array(value)) for name, value in base.weights.items()}
    for layer in range(args.num_hidden_layers):  # transformers keeps the experts' gate and up in one parameter
        stem = f"model.layers.{layer}.mlp."
        if f"{stem}switch_mlp.gate_proj.weight" in weights:
            gate, up = (weights.pop(f"{stem}switch_mlp.{name}_proj.weight") for name in ("gate", "up"))
            weights[f"{stem}experts.gate_up_proj"] = torch.cat([gate, up], dim=1)
            weights[f"{stem}experts.down_proj"] = weights.pop(f"{stem}switch_mlp.down_proj.weight")
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert set(missing) <= {"lm_head.weight"}
    assert not unexpected
    model.tie_weights()
    return model.eval()


def with_adapter(base: TinyModel, folder: Path, *, tied: bool = False) -> Any:
    """The model with the adapter on it; fails on any key that is missing or unexpected.

    A head that is `tied` shares the embedding's factors, which peft lists as missing under the head's name.
    """
    model = library("peft").PeftModel.from_pretrained(transformers_model(base), str(folder))
    report = model.load_adapter(str(folder), "default")
    assert not report.unexpected_keys
    missing = [key for key in report.missing_keys if "lora" in key]
    assert all(".lm_head." in key for key in missing) if tied else not missing
    return model.eval()


def logits(model: Any, tokens: list[int] = TOKENS) -> FloatArray:
    torch = library("torch")
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0].float().numpy()  # type: ignore[no-any-return]


def trained(base: TinyModel, folder: Path, dtype: str = "float32", **options: Any) -> Any:
    """An adapter that peft itself makes and saves in `folder`, with factors as training would leave them.

    `options` are those of LoraConfig. Unless `target_modules` says otherwise, all seven projections are adapted.
    """
    torch, peft = library("torch"), library("peft")
    config = peft.LoraConfig(**{"target_modules": _MODULES, "task_type": "CAUSAL_LM"} | options)
    model = peft.get_peft_model(transformers_model(base), config)
    torch.manual_seed(3)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_B" in name or "lora_embedding_" in name:
                value.copy_(0.1 * torch.randn_like(value))
            if "lora_" in name:
                value.copy_(value.to(getattr(torch, dtype)))
    model.save_pretrained(str(folder))
    return model.eval()

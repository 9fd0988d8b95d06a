"""What exactly answers, told in the same words wherever the MLX model runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_pipeline.backends.interface import BackendIdentity
from ml_pipeline.printable import printable

_VERSIONS = ("mlx-lm", "mlx", "python")
_LONGEST_WORD = 40


def base_identity(
    backend: str, base_model: str, versions: Mapping[str, Any], facts: Mapping[str, Any]
) -> BackendIdentity:
    """Put together what the guard's `versions` and `model_facts` found on the machine that has the model."""
    return BackendIdentity(
        backend=backend,
        backend_version=", ".join(f"{name} {_word(versions.get(name))}" for name in _VERSIONS),
        base_model=base_model,
        base_sha256=str(facts["sha256"]),
        quantisation=_quantisation(facts),
        chat_template_sha256=str(facts["chat_template_sha256"]),
    )


def _quantisation(facts: Mapping[str, Any]) -> str:
    quantisation = facts.get("quantization")
    if isinstance(quantisation, dict):
        return _word(f"{quantisation.get('bits')}bit group {quantisation.get('group_size')}")
    return _word(facts.get("dtype"))


def _word(value: object) -> str:
    return printable(value or "unknown", _LONGEST_WORD)

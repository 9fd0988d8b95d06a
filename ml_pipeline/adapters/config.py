"""Reading the configuration beside weights as mlx-lm, PEFT or transformers writes it, hostile until checked.

mlx-lm itself finds a scale that is a string only at the first forward pass, accepts rank 0, and raises a bare KeyError
for a missing scale.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

from ml_pipeline.adapters.adapter import AdapterFormat, AdapterKind
from ml_pipeline.adapters.config_record import (
    MAX_KEYS,
    SCALE_RANGE,
    AdapterConfig,
    checked_rank,
    finite_number,
    is_integer,
)
from ml_pipeline.adapters.peft_config import PEFT_REMEDY, peft_config
from ml_pipeline.adapters.safetensors_header import shortened, shown
from ml_pipeline.errors import AdapterError

MAX_CONFIG_BYTES = 1024 * 1024
_MLX_FIELDS = frozenset({"lora_parameters", "fine_tune_type"})

_REMEDY = (
    "Write adapter_config.json again as mlx-lm does: lora_parameters with rank, scale (its default is 20.0), dropout."
)


def read_config(path: Path, tensors_format: AdapterFormat | None = None) -> AdapterConfig:
    """Read and check the configuration at `path`: mlx-lm's or PEFT's `adapter_config.json`, or a model's `config.json`.

    PEFT's is known by `peft_type`; a full fine-tune that transformers saved lies beside its model's `config.json`,
    known by `model_type` and `architectures`. In one that says both what mlx-lm and what PEFT writes, the part counts
    that fits `tensors_format`, how the tensors beside it are named.

    Raises:
        AdapterError: it is missing, too large, not JSON, or holds wrong values; names every problem found.
    """
    problems: list[str] = []
    content = _read_json(path, problems)
    remedy = _REMEDY
    says_both = "peft_type" in content and not _MLX_FIELDS.isdisjoint(content)
    if says_both and tensors_format not in ("mlx", "peft"):
        problems.append(
            f"it says both {_listed(_MLX_FIELDS & content.keys())}, as mlx-lm does, and peft_type, as PEFT does, and "
            "the tensors are named as neither of them does"
        )
        remedy = "Keep the part that belongs to the weights."
        config = AdapterConfig("lora", 0, 1.0, 0.0, None, None)
    elif "peft_type" in content and not (says_both and tensors_format == "mlx"):
        config, remedy = peft_config(content, problems), PEFT_REMEDY
    elif {"model_type", "architectures"} <= content.keys():
        config = AdapterConfig("full", 0, 1.0, 0.0, None, None, "transformers")
    else:
        config = _mlx_config(content, problems)
    if problems:
        raise AdapterError.from_problems(str(path), shortened(problems), remedy)
    return config


def _listed(names: Iterable[str]) -> str:
    return " and ".join(sorted(names))


def _mlx_config(content: Mapping[str, Any], problems: list[str]) -> AdapterConfig:
    kind = _checked_kind(content.get("fine_tune_type", "lora"), problems)
    layer_count = _checked_layer_count(content.get("num_layers"), problems)
    parameters = content.get("lora_parameters")
    if kind != "full" and isinstance(parameters, dict):
        return AdapterConfig(
            kind,
            checked_rank(parameters.get("rank"), "lora_parameters.rank", problems, missing="rank" not in parameters),
            _checked_scale(parameters, problems),
            _checked_dropout(parameters.get("dropout", 0.0), problems),
            _checked_keys(parameters.get("keys"), problems),
            layer_count,
        )
    if kind != "full":
        problems.append(f"lora_parameters is {shown(parameters)}, not an object with rank and scale")
    return AdapterConfig("full", 0, 1.0, 0.0, None, layer_count)


def _read_json(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise AdapterError(f"{path}: not a regular file. Point to mlx-lm's adapter_config.json itself.")
        with path.open("rb") as file:
            raw = file.read(MAX_CONFIG_BYTES + 1)
    except FileNotFoundError as error:
        raise AdapterError(
            f"{path}: there is no such file. mlx-lm writes it beside the adapter's weights; copy it from there: "
            "without it the scale of the adapter is unknown."
        ) from error
    except OSError as error:
        raise AdapterError(f"{path}: cannot be read: {error.strerror}. Check the permissions and the disk.") from error
    if len(raw) > MAX_CONFIG_BYTES:
        raise AdapterError.from_problems(str(path), [f"larger than {MAX_CONFIG_BYTES} bytes"], _REMEDY)

    def reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        mapping = dict(pairs)
        if len(mapping) < len(pairs):
            problems.append("a key appears more than once, so which value holds is anyone's guess")
        return mapping

    try:
        content = json.loads(raw.decode("utf-8"), object_pairs_hook=reject_duplicates)
    except (ValueError, RecursionError) as error:
        raise AdapterError.from_problems(str(path), [f"not JSON: {shown(str(error))}"], _REMEDY) from error
    if not isinstance(content, dict):
        raise AdapterError.from_problems(str(path), ["not a JSON object"], _REMEDY)
    return content


def _checked_kind(value: object, problems: list[str]) -> AdapterKind:
    kinds: tuple[AdapterKind, ...] = get_args(AdapterKind)
    for kind in kinds:
        if value == kind:
            return kind
    problems.append(f"fine_tune_type is {shown(value)}, not one of {', '.join(kinds)}")
    return "lora"


def _checked_layer_count(value: Any, problems: list[str]) -> int | None:
    if value is None or (is_integer(value) and -1 <= value <= 100_000):
        return value  # type: ignore[no-any-return]
    problems.append(f"num_layers is {shown(value)}, not a whole number from -1 (all) up")
    return None


def _checked_scale(parameters: Mapping[str, Any], problems: list[str]) -> float:
    if "scale" not in parameters:
        hint = (
            " ('alpha' is there, which mlx-lm does not read: its scale is alpha / rank)"
            if "alpha" in parameters
            else ""
        )
        problems.append(f"lora_parameters.scale is missing{hint}")
        return 0.0
    scale = finite_number(parameters["scale"])
    low, high = SCALE_RANGE
    if scale is None or not low <= abs(scale) <= high:
        problems.append(f"lora_parameters.scale is {shown(parameters['scale'])}, not a number of size {low} to {high}")
        return 0.0
    return scale


def _checked_dropout(value: object, problems: list[str]) -> float:
    dropout = finite_number(value)
    if dropout is None or not 0.0 <= dropout < 1.0:
        problems.append(f"lora_parameters.dropout is {shown(value)}, not a number from 0 to below 1")
        return 0.0
    return dropout


def _checked_keys(value: Any, problems: list[str]) -> tuple[str, ...] | None:
    if value is None:
        return None
    if isinstance(value, list) and len(value) <= MAX_KEYS and all(isinstance(key, str) for key in value):
        return tuple(value)
    problems.append(f"lora_parameters.keys is {shown(value)}, not a list of module names")
    return None

"""Which GGUF tensor each adapter module belongs to, and proof, before anything is written, that all of them fit."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ml_pipeline.adapters.adapter import Adapter
from ml_pipeline.adapters.base_gguf import BaseModelFacts
from ml_pipeline.adapters.factors import LoraPair, lora_pairs
from ml_pipeline.adapters.faults import Fault, grouped
from ml_pipeline.adapters.gguf_architectures import VERIFIED_ARCHITECTURES, gguf_name
from ml_pipeline.adapters.safetensors_header import SafetensorsHeader, shortened, shown
from ml_pipeline.errors import AdapterError

TOKEN_EMBEDDING = "token_embd"
_HEAD = "output"
_TIED_EMBEDDING = "the base's head is its token embedding, which llama.cpp does not adapt together; use mlx for it"
_TIED_HEAD = (
    "the base's head is tied to its token embedding, so that the GGUF has no head that could be adapted alone; merge "
    "the adapter into a base whose head is untied (peft's merge_and_unload) and score that model"
)
_LAYER = re.compile(r"\bblk\.\d+\.")
_SINGLE_EXPERT = re.compile(r"\.experts\.[0-9]+\.")
_STORED_AS_A_ROW = ".ffn_gate_inp_shexp"
"""A matrix of one row, of which GGUF keeps only the row."""


@dataclass(frozen=True, slots=True)
class PlannedPair:
    """One module's factors and the base tensor that they change, named as in the base without `.weight`.

    `scale` is what multiplies B·A; `permuted_heads` the number of heads whose rows are to be reordered in `b`, or None.
    """

    gguf_name: str
    pair: LoraPair
    scale: float
    permuted_heads: int | None

    @property
    def alpha(self) -> float:
        """What llama.cpp divides by this module's rank to get its scale."""
        return self.scale * self.pair.rank

    @property
    def is_looked_up(self) -> bool:
        """Whether A is a table of which llama.cpp takes rows, one a token: (vocabulary, r) instead of (r, in)."""
        return self.gguf_name == TOKEN_EMBEDDING


def plan_conversion(adapter: Adapter, header: SafetensorsHeader, base: BaseModelFacts) -> list[PlannedPair]:
    """Match every module of the adapter with a tensor of the base, sorted by the adapter's module names.

    Raises:
        AdapterError: the adapter's kind or the base's architecture has no verified conversion, or anything at all does
            not fit; names everything that does not.
    """
    _check_supported(adapter, base)
    problems: list[str] = []
    misfits: list[tuple[str, str, str]] = []
    last = base.n_layers - 1
    # mlx-lm adapts the last blocks of a model, so an adapter that stops early was trained on a model with fewer.
    if adapter.format == "mlx" and adapter.layers and adapter.layers[-1] != last:
        problems.append(f"the adapter's last layer is {adapter.layers[-1]}, the base's is {last}")
    plan: list[PlannedPair] = []
    pairs = lora_pairs(header)
    scales = adapter.scales(pair.module for pair in pairs)
    for pair in pairs:
        name = gguf_name(pair.module, base.architecture, base.n_layers)
        found = _misfits(pair, name, base)
        misfits += [(pair.module, problem, "") for problem in found]
        if name is not None and not found:
            plan.append(PlannedPair(name, pair, scales[pair.module], _permuted_heads(name, base)))
    problems += [*map(str, _alike(misfits)), *_doubled(plan)]
    if problems:
        where = f"{adapter.path} does not fit the base model {base.path} ({base.architecture})"
        # A tied head is no sign of another base, and says its own way out.
        others = [problem for problem in problems if not problem.endswith((_TIED_EMBEDDING, _TIED_HEAD))]
        remedy = "Score it on the base model that it was trained on." if others else ""
        raise AdapterError.from_problems(where, shortened(problems), remedy)
    return plan


def _alike(misfits: list[tuple[str, str, str]]) -> list[Fault]:
    """Misfits put together over the layers, where they differ in nothing but the number of the layer."""
    by_kind: dict[str, set[str]] = {}
    for _, problem, _ in misfits:
        by_kind.setdefault(_LAYER.sub("blk.*.", problem), set()).add(problem)
    return grouped(
        (module, kind if len(by_kind[kind := _LAYER.sub("blk.*.", problem)]) > 1 else problem, way_out)
        for module, problem, way_out in misfits
    )


def _check_supported(adapter: Adapter, base: BaseModelFacts) -> None:
    if adapter.kind == "dora":
        raise AdapterError(
            f"{adapter.path}: a DoRA adapter, which GGUF cannot express. "
            "Score it with the mlx backend, or fuse it into the base model (mlx_lm.fuse) and score that."
        )
    if adapter.kind == "full":
        raise AdapterError(
            f"{adapter.path}: a full fine-tune, not a LoRA adapter. "
            "Score it with the mlx backend, or convert the whole model to GGUF and use that as the base."
        )
    if base.architecture not in VERIFIED_ARCHITECTURES:
        raise AdapterError(
            f"{base.path}: the architecture {shown(base.architecture)} has no verified conversion to a GGUF LoRA; "
            f"verified are {', '.join(sorted(VERIFIED_ARCHITECTURES))}. Score this base with the mlx backend."
        )


def _misfits(pair: LoraPair, name: str | None, base: BaseModelFacts) -> list[str]:
    if name is None and _SINGLE_EXPERT.search(pair.module):
        return ["experts in modules of their own, as PEFT keeps them, are not put together for GGUF"]
    if name is None:
        return [f"a {base.architecture} model of {base.n_layers} layers has no such module"]
    weight = base.tensors.get(f"{name}.weight")
    if weight is None and name == _HEAD and f"{TOKEN_EMBEDDING}.weight" in base.tensors:
        return [_TIED_HEAD]
    if weight is None:
        return [f"the base has no tensor {name}.weight"]
    if name.endswith(_STORED_AS_A_ROW):
        weight = (1, *weight)
    made_for = pair.weight_shape
    if name == TOKEN_EMBEDDING:
        if "output.weight" not in base.tensors:
            return [_TIED_EMBEDDING]
        made_for = made_for[::-1]
    if made_for != weight:
        axes = "(out, in)" if len(made_for) == 2 else "(experts, out, in)"
        return [f"made for a weight of {list(made_for)} {axes}, the base's {name} has {list(weight)}"]
    return _head_misfits(name, weight[0], base)


def _head_misfits(gguf_name: str, rows: int, base: BaseModelFacts) -> list[str]:
    if (field := _head_count_field(gguf_name, base)) is None:
        return []
    heads = _permuted_heads(gguf_name, base)
    if heads is None:
        return [f"the base does not state one {field} for all layers, which {gguf_name} needs"]
    if heads < 1 or rows % (2 * heads):
        return [f"the {rows} rows of {gguf_name} cannot be split into {heads} heads of even size"]
    return []


def _head_count_field(gguf_name: str, base: BaseModelFacts) -> str | None:
    return VERIFIED_ARCHITECTURES[base.architecture].get(gguf_name.rpartition(".")[2])


def _permuted_heads(gguf_name: str, base: BaseModelFacts) -> int | None:
    counts = {"n_heads": base.n_heads, "n_heads_kv": base.n_heads_kv}
    field = _head_count_field(gguf_name, base)
    return counts[field] if field is not None else None


def _doubled(plan: list[PlannedPair]) -> list[str]:
    modules: dict[str, list[str]] = {}
    for planned in plan:
        modules.setdefault(planned.gguf_name, []).append(planned.pair.module)
    return [
        f"{', '.join(shown(name) for name in names)}: all mean the base's {gguf_name}"
        for gguf_name, names in modules.items()
        if len(names) > 1
    ]

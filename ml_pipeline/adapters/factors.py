"""The low-rank factors in an adapter's file, whichever of the two formats named and oriented them.

mlx-lm writes `<module>.lora_a` (in, r), `.lora_b` (r, out) and DoRA's `.m`; PEFT writes
`base_model.model.<module>.lora_A.weight` (r, in), `.lora_B.weight` (out, r) and `.lora_magnitude_vector`. A mixture of
experts has one more dimension in front, and mlx-lm does not transpose there.

What others put into the names does not matter: the adapter's own name, as a PEFT module has it
(`lora_A.default.weight`), the wrappers of torch.compile and of distributed training, and PEFT's prefix left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ml_pipeline.adapters.safetensors_data import stored_values
from ml_pipeline.adapters.safetensors_header import SafetensorsHeader, TensorEntry

Leaf = Literal["a", "b", "magnitude"]

PEFT_PREFIX = "base_model.model."
_MLX_LEAVES: dict[str, Leaf] = {"lora_a": "a", "lora_b": "b", "m": "magnitude"}
_PEFT_LEAVES: dict[str, Leaf] = {
    "lora_A": "a",
    "lora_B": "b",
    "lora_embedding_A": "a",
    "lora_embedding_B": "b",
    "lora_magnitude_vector": "magnitude",
}
_PEFT_NAME = re.compile(
    rf"(?:{re.escape(PEFT_PREFIX)})?(.+)\."
    r"(?:(lora_[AB])(?:\.([^.]+))?\.weight|(lora_embedding_[AB]|lora_magnitude_vector)(?:\.([^.]+?))??(?:\.weight)?)",
    re.DOTALL,
)
_WRAPPER = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""What torch.compile, FSDP and activation checkpointing put into the names of what they wrap."""
_PARALLEL = f"module.{PEFT_PREFIX}"
"""What DistributedDataParallel makes of it."""
_BLOCK = re.compile(r"(?:^|\.)layers\.(0|[1-9][0-9]{0,5})\.(.+)$")


@dataclass(frozen=True, slots=True)
class LoraPair:
    """The two factors of one module, and DoRA's magnitudes. `transposed` says that they are stored as mlx-lm does."""

    module: str
    a: TensorEntry
    b: TensorEntry
    transposed: bool
    magnitude: TensorEntry | None = None

    @property
    def a_shape(self) -> tuple[int, ...]:
        """The shape of A as (r, in), or (experts, r, in)."""
        return self.a.shape[::-1] if self.transposed else self.a.shape

    @property
    def b_shape(self) -> tuple[int, ...]:
        """The shape of B as (out, r), or (experts, out, r)."""
        return self.b.shape[::-1] if self.transposed else self.b.shape

    @property
    def rank(self) -> int:
        """The rank of this module alone."""
        return self.b_shape[-1]

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """The shape of the weight that B·A is added to: (out, in), or (experts, out, in)."""
        return (*self.b_shape[:-1], self.a_shape[-1])

    @property
    def is_embedding(self) -> bool:
        """Whether the module is an embedding, by its name: its A is (r, vocabulary), its B (size, r)."""
        return is_embedding(self.module)

    def a_values(self, data: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """View A in the mapped file `data`, in `a_shape`."""
        return _oriented(stored_values(data, self.a), self.transposed)

    def b_values(self, data: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """View B in the mapped file `data`, in `b_shape`."""
        return _oriented(stored_values(data, self.b), self.transposed)


def is_embedding(module: str) -> bool:
    """Whether a module is an embedding, by its name (`embed_tokens`, `wte`)."""
    name = module.rpartition(".")[2]
    return "embed" in name or name == "wte"


def plain_name(name: str) -> str:
    """A tensor's name without the wrappers that training put the model into."""
    plain = _WRAPPER.sub("", name)
    return plain.removeprefix("module.") if plain.startswith(_PARALLEL) else plain


def is_frozen_base(name: str) -> bool:
    """Whether a tensor is the base's own weight, which PEFT saves with the factors of a head or an embedding."""
    plain = plain_name(name)
    return plain.startswith(PEFT_PREFIX) and plain.endswith(".base_layer.weight")


def is_peft_name(name: str) -> bool:
    """Whether a tensor is named as PEFT does."""
    plain = plain_name(name)
    return plain.startswith(PEFT_PREFIX) or _PEFT_NAME.fullmatch(plain) is not None


def adapter_name(name: str) -> str | None:
    """The adapter's own name in the name of one of its tensors; None where there is none."""
    match = _PEFT_NAME.fullmatch(plain_name(name))
    return (match[3] or match[5]) if match else None


def module_and_leaf(name: str) -> tuple[str, Leaf] | None:
    """Split a tensor's name into the module's path in the base model and what it is there; None for anything else."""
    name = plain_name(name)
    if match := _PEFT_NAME.fullmatch(name):
        return match[1], _PEFT_LEAVES[match[2] or match[4]]
    module, _, leaf = name.rpartition(".")
    return (module, _MLX_LEAVES[leaf]) if module and leaf in _MLX_LEAVES else None


def lora_pairs(header: SafetensorsHeader) -> list[LoraPair]:
    """Return the modules that have both factors, in the order of their names."""
    modules: dict[str, dict[Leaf, TensorEntry]] = {}
    for entry in header.tensors:
        if (place := module_and_leaf(entry.name)) is not None:
            modules.setdefault(place[0], {})[place[1]] = entry
    return [paired(module, leaves) for module, leaves in sorted(modules.items()) if "a" in leaves and "b" in leaves]


def paired(module: str, leaves: dict[Leaf, TensorEntry]) -> LoraPair:
    """Make the pair of a module out of its tensors; `a` and `b` must be there."""
    a, b = leaves["a"], leaves["b"]
    transposed = not is_peft_name(a.name) and len(a.shape) == 2
    return LoraPair(module, a, b, transposed, leaves.get("magnitude"))


def block_and_module(module: str) -> tuple[int, str] | None:
    """Split `model.layers.3.self_attn.q_proj` into (3, `self_attn.q_proj`); None outside the transformer blocks."""
    match = _BLOCK.search(module)
    return (int(match[1]), match[2]) if match else None


def _oriented(stored: npt.NDArray[Any], transposed: bool) -> npt.NDArray[Any]:
    return stored.T if transposed else stored

"""What is wrong with tensors or modules of an adapter, put together where they are alike, each with its own way out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ml_pipeline.adapters.safetensors_header import shown

_MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with the tensors or modules of these names, all alike, and what to do about it.

    `names` is empty where it is the adapter as a whole; `way_out` where the configuration or the base may be to blame.
    """

    names: tuple[str, ...]
    reason: str
    way_out: str = ""

    def __str__(self) -> str:
        where = f"{named(self.names)}: " if self.names else ""
        return f"{where}{self.reason}" + (f". {self.way_out}." if self.way_out else "")


def grouped(faults: Iterable[tuple[str, str, str]]) -> list[Fault]:
    """Faults put together by reason and way out; each comes with a name, which may be empty."""
    names: dict[tuple[str, str], list[str]] = {}
    for name, reason, way_out in faults:
        names.setdefault((reason, way_out), []).append(name)
    return [Fault(tuple(filter(None, of)), reason, way_out) for (reason, way_out), of in names.items()]


def named(names: Sequence[str]) -> str:
    """A few names, and how many there are."""
    few = ", ".join(shown(name) for name in names[:_MOST_NAMED])
    return few if len(names) <= _MOST_NAMED else f"{len(names)} such as {few}"

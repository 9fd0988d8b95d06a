"""Finds every new LoRA checkpoint, scores it, and shows what got better and what got worse.

`load_scores`, `load_responses` and `compare` give what is stored as pandas frames: see `ml_pipeline.notebook`. They are
imported when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ml_pipeline.notebook import compare, load_responses, load_scores

__all__ = ["compare", "load_responses", "load_scores"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ml_pipeline import notebook

    return getattr(notebook, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

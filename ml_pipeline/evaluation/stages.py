"""The stages of an evaluation, in order, and what each of them needs."""

from __future__ import annotations

from collections.abc import Collection

from ml_pipeline.judge_settings import EMBEDDED, JudgeSettings

STAGES = (
    "adapter",
    "converted_adapter",
    "responses",
    "probe_results",
    "heuristic_scores",
    "degeneration",
    "checkpoint_scores",
    "judgements",
)
_NEEDS_ADAPTER = {"adapter", "converted_adapter", "responses"}


def needs_adapter(stages: Collection[str]) -> bool:
    """Whether any of these stages works on the checkpoint's files."""
    return bool(_NEEDS_ADAPTER & set(stages))


def needs_model(stages: Collection[str], judge: JudgeSettings) -> bool:
    """Whether any of these stages has to load the checkpoint's base model."""
    return "responses" in stages or ("judgements" in stages and EMBEDDED in judge.members)

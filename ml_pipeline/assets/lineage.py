"""Which columns the columns of a table come from, for the column lineage in the Dagster UI."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import dagster as dg

from ml_pipeline.stores.tables import HEURISTIC_FIGURES, TABLES

Sources = Mapping[str, Sequence[str]]
"""Columns of an asset's table by the asset's name."""

_MADE_ANEW = {"unscored_reason", "explanation", "transcript", "rubric"}
"""Columns that two tables have under one name without one being copied from the other."""


def _derived(columns: Iterable[str], **sources: Sequence[str]) -> dict[str, Sources]:
    return dict.fromkeys(columns, sources)


def _filters(name: str) -> list[str]:
    return [f"{name}_extracted", f"{name}_passed"]


_ACCURACY = ("accuracy", "accuracy_low", "accuracy_high")
_SHARE = ("share", "share_low", "share_high")
_MARKED = ("response", "finish_reason", "error", "choice_log_probabilities")
_PASSES = ("probe_id", "passed")

COPIED_FROM: Mapping[str, str] = MappingProxyType(
    {
        "probe_results": "responses",
        "heuristic_scores": "responses",
        "degeneration": "responses",
        "judgements": "responses",
        "checkpoint_scores": "probe_results",
        "leaderboard": "checkpoint_scores",
        "score_table": "checkpoint_scores",
    }
)
"""The table whose columns of the same name a table repeats."""

DERIVED: Mapping[str, Mapping[str, Sources]] = MappingProxyType(
    {
        "probe_results": {
            **_derived(["passed", "unscored_reason"], responses=_MARKED),
            **_derived(["extracted", *_filters("strict"), *_filters("flexible")], responses=("response",)),
            **_derived(["passed_normalised"], responses=("choice_log_probabilities",)),
        },
        "heuristic_scores": {
            **_derived([*HEURISTIC_FIGURES, "lek", "lek_normalised"], responses=("response",)),
            **_derived(["unscored_reason"], responses=("finish_reason", "error")),
        },
        "degeneration": {
            **_derived(["hits", *_SHARE], responses=("prompt", "response", "finish_reason")),
            **_derived(["answers", "unscored"], responses=("finish_reason", "error")),
        },
        "judgements": {
            **_derived(["score", "explanation", "transcript", "votes"], responses=("prompt", "response")),
            **_derived(["unscored_reason"], responses=("prompt", "response", "finish_reason", "error")),
        },
        "checkpoint_scores": {
            **_derived(["correct", "total", "unscored", "accuracy"], probe_results=("passed",)),
            **_derived(["accuracy_low", "accuracy_high"], probe_results=("passed", "probe_id", "template")),
        },
        "leaderboard": {
            **_derived(["rank", "tied", "best", "base_accuracy"], checkpoint_scores=("accuracy",)),
            **_derived(["base_partition_key", "previous_partition_key"], checkpoint_scores=("partition_key",)),
            **_derived(
                [
                    *("near_best", "trend", "verdict", "delta", "delta_low", "delta_high", "paired", "better", "worse"),
                    *("p_value", "p_adjusted", "detectable", "beyond_low", "beyond_high", "beyond_p_value"),
                    *(f"previous_{name}" for name in ("delta", "low", "high", "p_value", "p_adjusted", "verdict")),
                ],
                probe_results=_PASSES,
            ),
            **_derived(["templates"], probe_results=("template",)),
            **_derived([f"lek_{name}" for name in ("delta", "low", "high")], heuristic_scores=("lek",)),
            **_derived([f"judge_{name}" for name in ("delta", "low", "high")], judgements=("score",)),
        },
        "score_table": {
            **_derived(["training_loss", "validation_loss"], training_loss=("loss",)),
            **_derived(
                ["value", "low", "high", "count", "unscored"],
                checkpoint_scores=(*_ACCURACY, "total", "unscored"),
                degeneration=(*_SHARE, "answers", "unscored"),
                heuristic_scores=("lek", "degeneration"),
                judgements=("score",),
                responses=("completion_tokens", "finish_reason"),
            ),
            **_derived(["unsound"], degeneration=("share",)),
        },
    }
)
"""What else a column is worked out from: by table, then by column."""


def lineage(table: str, columns: Iterable[str]) -> dg.TableColumnLineage | None:
    """The lineage of those of `columns` that come from other tables; None for a table that none of ours feeds."""
    if table not in COPIED_FROM:
        return None
    upstream, derived = COPIED_FROM[table], DERIVED[table]
    copied = {column.name for column in TABLES[upstream].columns} - _MADE_ANEW
    deps: dict[str, list[dg.TableColumnDep]] = {}
    for column in columns:
        sources: Sources = derived.get(column) or ({upstream: (column,)} if column in copied else {})
        if sources:
            deps[column] = [dg.TableColumnDep(asset, name) for asset, names in sources.items() for name in names]
    return dg.TableColumnLineage(deps)


def lineage_metadata(table: str, columns: Iterable[str]) -> dict[str, dg.MetadataValue[dg.TableColumnLineage]]:
    """The lineage as metadata of a materialisation; nothing for a table without."""
    found = lineage(table, columns)
    return {"dagster/column_lineage": dg.MetadataValue.column_lineage(found)} if found else {}

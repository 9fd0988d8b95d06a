"""What produced the scores of a run, and why some are missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from ml_pipeline.reports.runs import RunCurve
from ml_pipeline.reports.scores import Scores
from ml_pipeline.settings import IMPORTED_SOURCE

_SHORT_HASH = 12
_MOST_REASONS = 20
_REASON_CHARACTERS = 240


@dataclass(frozen=True, slots=True)
class UnscoredGroup:
    """Scores that are missing for one reason: of what kind, how many, and in which iterations."""

    kind: str
    reason: str
    count: int
    iterations: str


def provenance(scores: Scores, curve: RunCurve) -> list[tuple[str, str]]:
    """Name and value of everything that a reader needs to repeat the scores; differing values are all listed."""
    if curve.source == IMPORTED_SOURCE:
        told = "not measured by this program; the table imports names file, hash and line of every row"
        return [("Imported", told), ("Base model", curve.base_model), ("Protocol", curve.protocol_id)]
    rows = _of_curve(scores.evaluations, curve)
    adapters = rows[rows["adapter_sha256"].notna()]
    lines = [
        ("Base model", f"{curve.base_model} ({_distinct(rows['quantisation'])})"),
        ("Base sha256", _hashes(rows["base_sha256"])),
        ("Backend", _distinct(rows["backend"] + " " + rows["backend_version"])),
        ("Suite", _distinct(rows["suite"] + " " + rows["suite_version"])),
        ("Suite sha256", _hashes(rows["suite_sha256"])),
        ("Options", _distinct(rows["options"])),
        ("Chat template sha256", _hashes(rows["chat_template_sha256"])),
        ("Judge", _distinct(rows["judge_model"]) or "none"),
        ("Adapters", _adapters(adapters)),
        ("Protocol", curve.protocol_id),
    ]
    return [(name, value or "not recorded") for name, value in lines]


class UnscoredBook:
    """Looks up why scores are missing, by run; made once a report, since few rows of the tables are without one."""

    def __init__(self, scores: Scores) -> None:
        tables = {"probe": scores.probe_results, "heuristic": scores.heuristic_scores, "judge": scores.judgements}
        self._missing = {kind: table.dropna(subset="unscored_reason") for kind, table in tables.items()}

    def groups(self, curve: RunCurve) -> list[UnscoredGroup]:
        """The reasons, the most frequent first; at most twenty groups."""
        found: list[UnscoredGroup] = []
        for kind, table in self._missing.items():
            for reason, rows in _of_curve(table, curve).groupby("unscored_reason"):
                shown = some_iterations(sorted({int(iteration) for iteration in rows["iteration"]}))
                text = str(reason)
                words = text if len(text) <= _REASON_CHARACTERS else f"{text[:_REASON_CHARACTERS]} …"
                found.append(UnscoredGroup(kind, words, len(rows), shown))
        return sorted(found, key=lambda group: (-group.count, group.kind, group.reason))[:_MOST_REASONS]


def some_iterations(spread: Sequence[int], most: int = 6) -> str:
    """The first of these iterations, and how many more there are."""
    more = f" and {len(spread) - most} more" if len(spread) > most else ""
    return ", ".join(map(str, spread[:most])) + more


def _of_curve(table: pd.DataFrame, curve: RunCurve) -> pd.DataFrame:
    points = [point for point in (curve.base, *curve.points) if point is not None]
    partitions, _, evaluations = zip(*(point.key for point in points), strict=True)
    ours = table["evaluation_id"].isin(evaluations) & table["partition_key"].isin(partitions)
    return table[ours & table["suite"].eq(curve.suite)]


def _distinct(values: pd.Series[str]) -> str:
    return ", ".join(sorted({str(value) for value in values.dropna()}))


def _hashes(values: pd.Series[str]) -> str:
    return ", ".join(sorted({str(value)[:_SHORT_HASH] for value in values.dropna()}))


def _adapters(rows: pd.DataFrame) -> str:
    if rows.empty:
        return "none"
    kinds = rows[["adapter_kind", "adapter_rank", "adapter_scale"]].drop_duplicates()
    named = [
        f"{kind}, rank {rank:.0f}, scale {scale:g}"
        for kind, rank, scale in kinds.dropna().itertuples(index=False, name=None)
    ]
    effects = rows["adapter_effect"].dropna()
    proof = f"; each changed a logit by at least {effects.min():.2g}" if len(effects) == len(rows) else ""
    return "; ".join(named) + proof

"""What is stored of one checkpoint and suite, answer by answer: what the exports of answers are made of."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ml_pipeline.stores.parquet import ParquetStore
from ml_pipeline.stores.tables import EVALUATIONS, HEURISTIC_SCORES, JUDGEMENTS, PROBE_RESULTS, RESPONSES

Row = Mapping[str, Any]
_NO_FILE = re.compile(r"[^A-Za-z0-9._=@+-]|(?<=\.)\.|^\.")
_LONGEST_PART = 200


def file_part(name: str) -> str:
    """A stored name as part of a file's: as it is, unless it is one that this program never gives and that could lead
    out of the folder."""
    return _NO_FILE.sub("-", name)[:_LONGEST_PART]


@dataclass(frozen=True)
class Answered:
    """One answer: its row of `responses`, that of `probe_results` (None: no check), and what was judged of it.

    `judged` are rows of `judgements` and `lek` the heuristic composite; only a probe's first answer has them.
    """

    response: Row
    result: Row | None
    judged: Sequence[Row]
    lek: float | None

    def metrics(self) -> dict[str, float]:
        """Its figures by name; one that could not be made is absent."""
        found: dict[str, float] = {}
        for name, column in (("acc", "passed"), ("acc_norm", "passed_normalised")):
            if self.result is not None and self.result[column] is not None:
                found[name] = float(self.result[column])
        found |= {f"judge_{row['dimension']}": row["score"] for row in self.judged if row["score"] is not None}
        return found if self.lek is None else {**found, "lek": self.lek}

    def unscored(self) -> dict[str, str]:
        """Why figures are missing, by name."""
        reasons = {f"judge_{row['dimension']}": row["unscored_reason"] for row in self.judged if row["score"] is None}
        if self.result is not None and self.result["passed"] is None:
            reasons["acc"] = self.result["unscored_reason"]
        return reasons


@dataclass(frozen=True)
class Evaluated:
    """One checkpoint's answers to one suite, by probe and sample, and the row of `evaluations` that says how."""

    evaluation: Row
    answers: Sequence[Answered]

    @property
    def options(self) -> dict[str, Any]:
        """The generation options."""
        found: dict[str, Any] = json.loads(self.evaluation["options"])
        return found

    def values(self) -> dict[str, list[float]]:
        """Every figure's values over the answers that have it, by name."""
        found: dict[str, list[float]] = {}
        for answer in self.answers:
            for name, value in answer.metrics().items():
                found.setdefault(name, []).append(value)
        return found


def evaluated(parquet: ParquetStore, partition_key: str) -> Iterator[Evaluated]:
    """The suites of one measured checkpoint, by name; none of one that was imported, whose answers are not known.

    Raises:
        StoreError: a file is damaged.
    """
    tables = {
        table.name: parquet.read_all(table, [partition_key]).to_pylist()
        for table in (EVALUATIONS, RESPONSES, PROBE_RESULTS, JUDGEMENTS, HEURISTIC_SCORES)
    }
    results = {_asked(row): row for row in tables[PROBE_RESULTS.name]}
    leks = {(row["evaluation_id"], row["probe_id"]): row["lek"] for row in tables[HEURISTIC_SCORES.name]}
    judged: dict[tuple[Any, ...], list[Row]] = {}
    for row in tables[JUDGEMENTS.name]:
        judged.setdefault((row["evaluation_id"], row["probe_id"]), []).append(row)
    by_evaluation: dict[str, dict[str, list[Answered]]] = {}
    for row in sorted(tables[RESPONSES.name], key=lambda row: int(row["sample"])):
        probe = (row["evaluation_id"], row["probe_id"])
        figures = (judged.get(probe, []), leks.get(probe)) if row["sample"] == 1 else ([], None)
        answer = Answered(row, results.get(_asked(row)), *figures)
        by_evaluation.setdefault(probe[0], {}).setdefault(probe[1], []).append(answer)
    for evaluation in sorted(tables[EVALUATIONS.name], key=lambda row: str(row["suite"])):
        probes = by_evaluation.get(evaluation["evaluation_id"], {})
        yield Evaluated(evaluation, [answer for answers in probes.values() for answer in answers])


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean and its standard error as both programs have it, answers taken as independent; None for one value."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return statistics.fmean(values), error


def _asked(row: Row) -> tuple[Any, ...]:
    return row["evaluation_id"], row["probe_id"], row["sample"]

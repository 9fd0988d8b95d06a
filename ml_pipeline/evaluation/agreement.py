"""How far the judges of an evaluation agree, out of rows of `judge_votes`."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from ml_pipeline.scoring import krippendorff_alpha

Row = dict[str, Any]
_Answers = dict[tuple[str, str], list[float]]


def vote_facts(votes: Sequence[Row]) -> dict[str, Any]:
    """How far judges agree with each other, and each with itself over its repeats, as facts to show; nothing where
    every answer has one vote."""
    return {"agreement": agreement(votes)} if votes else {}


def agreement(votes: Sequence[Row]) -> list[Row]:
    """Krippendorff's alpha by suite and dimension, over interval and over ordinal data, and how many answers had the
    two figures that it takes. An alpha is None where there is nothing to compare: all figures are the same."""
    figures: dict[tuple[str, str], dict[str, _Answers]] = {}
    for row in votes:
        judges = figures.setdefault((row["suite"], row["dimension"]), {})
        own = judges.setdefault(row["judge_model"], {}).setdefault((row["partition_key"], row["probe_id"]), [])
        if row["score"] is not None:
            own.append(row["score"])
    return [
        {
            "suite": suite,
            "dimension": dimension,
            "between": between,
            "answers": sum(len(unit) > 1 for unit in units),
            "alpha_interval": krippendorff_alpha(list(units)),
            "alpha_ordinal": krippendorff_alpha(list(units), "ordinal"),
        }
        for (suite, dimension), judges in figures.items()
        for between, units in _comparisons(judges, repeated=any(row["repeat"] > 1 for row in votes))
    ]


def _comparisons(judges: dict[str, _Answers], *, repeated: bool) -> Iterator[tuple[str, Collection[Sequence[float]]]]:
    if repeated:
        for judge, answers in judges.items():
            yield f"repeats of {judge}", answers.values()
    if len(judges) > 1:
        every = dict.fromkeys(answer for answers in judges.values() for answer in answers)
        yield (
            "judges",
            [
                [statistics.median(own) for answers in judges.values() if (own := answers.get(answer))]
                for answer in every
            ],
        )

"""What a checkpoint passed, out of rows of `probe_results`, in the form in which checkpoints are compared."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

from ml_pipeline.reports.comparison import Passes
from ml_pipeline.reports.conclusions import ENDLESS_SIGNS, mostly_endless
from ml_pipeline.scoring.degeneration import Answer, signals_of


def passes_by_protocol(results: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], Passes]:
    """The passes of one checkpoint by suite and protocol id; answers without a score count neither way."""
    answers: dict[tuple[str, str], dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for row in results:
        if row["passed"] is not None:
            answers[row["suite"], row["protocol_id"]][row["probe_id"]].append(row["passed"])
    return {
        name: {probe: Fraction(sum(passed), len(passed)) for probe, passed in by_probe.items()}
        for name, by_probe in answers.items()
    }


def cut_by_protocol(results: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], frozenset[str]]:
    """The probes of which the token limit cut an answer of one checkpoint before its end, by suite and protocol id;
    none where most of what it cut has no end."""
    cut: dict[tuple[str, str], set[str]] = defaultdict(set)
    signs: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for row in results:
        name, probe = (row["suite"], row["protocol_id"]), row["probe_id"]
        signs[name].update(signals_of(Answer("", row["response"] or "", row["finish_reason"] or "", probe)))
        if row["finish_reason"] == "length":
            cut[name].add(probe)
    return {
        name: frozenset()
        if mostly_endless(**{sign: signs[name][sign] for sign in ENDLESS_SIGNS})
        else frozenset(probes)
        for name, probes in cut.items()
    }

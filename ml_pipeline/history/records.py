"""Every kind of record that the original wrote, and the rows that are in one. ValueError says what is wrong with one.

Flat records are rows of the original's DuckDB tables and of its Influx measurements, which share their columns; the
others are lines of its buffer for an unreachable Influx, and of its files of capability and content scores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ml_pipeline.history.fields import Fields, figure, made_up_ordinal, moment, name, number, table, truth, whole
from ml_pipeline.history.past import (
    CAPABILITY,
    CONTENT,
    PastRow,
    accuracy_values,
    check_accuracy,
    iteration_of,
)
from ml_pipeline.scoring.statistics import OVERALL
from ml_pipeline.stores.tables import CHECKPOINT_SCORES, JUDGEMENTS, PROBE_RESULTS

AGGREGATE = "aggregate"
"""The probe of a content score that is the mean over all probes."""
_JUDGED = ("reasoning", "correctness", "clarity", "avg")
_MOST_RESPONSE_CHARS = 10_000


@dataclass(frozen=True, slots=True)
class Whose:
    """What the user says of a file whose lines name no run and no model; empty where nothing was said."""

    run: str = ""
    model: str = ""


NOT_SAID = Whose()


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of record: its name, the fields by which it is known, and what reads its rows."""

    name: str
    fields: frozenset[str]
    rows: Callable[[Fields, Whose], list[PastRow]]


def kind_of(fields: Fields | frozenset[str]) -> Kind | None:
    """The kind of a record with these fields; the first that fits."""
    return next((kind for kind in KINDS if kind.fields <= set(fields)), None)


def _accuracy(fields: Fields, whose: Whose) -> list[PastRow]:
    category = OVERALL if fields.get("category") is None else name(fields, "category")
    return [_counts(_checkpoint(fields, CAPABILITY), fields, category)]


def _probe(fields: Fields, whose: Whose) -> list[PastRow]:
    return [_answer(_checkpoint(fields, CAPABILITY), fields, name(fields, "probe_id"))]


def _judgements(fields: Fields, whose: Whose) -> list[PastRow]:
    who, probe, category = _checkpoint(fields, CAPABILITY), name(fields, "probe_id"), name(fields, "category")
    return [_judged(who, probe, dimension, figure(fields, dimension), category) for dimension in _JUDGED]


def _content(fields: Fields, whose: Whose) -> list[PastRow]:
    who = _checkpoint(fields, CONTENT)
    ordinal = made_up_ordinal(moment(fields, "time"), who.iteration)
    # The original wrote a point for each probe without its name; its time says which it was.
    probe = AGGREGATE if ordinal is None else f"probe {ordinal // 10 + 1}"
    return [_judged(who, probe, name(fields, "dimension"), figure(fields, "score"))]


def _content_probe(fields: Fields, whose: Whose) -> list[PastRow]:
    who = _checkpoint(fields, CONTENT)
    return [_judged(who, name(fields, "probe_id"), name(fields, "dimension"), figure(fields, "score"))]


def _buffered(fields: Fields, whose: Whose) -> list[PastRow]:
    checkpoint, results = table(fields, "checkpoint"), table(fields, "results")
    named = {
        "model": checkpoint.get("ModelTag"),
        "run_id": checkpoint.get("RunID"),
        "label": checkpoint.get("Label"),
        "iteration": checkpoint.get("Iteration"),
        "scored_at": fields.get("timestamp"),
    }
    who = _checkpoint(named, CAPABILITY)
    answers = [_answer(who, table(table(results, "probes"), probe), _key(probe)) for probe in table(results, "probes")]
    return [*_all_counts(who, results), *answers]


def _capability_line(fields: Fields, whose: Whose) -> list[PastRow]:
    return _all_counts(_labelled(fields, CAPABILITY, whose), fields)


def _content_line(fields: Fields, whose: Whose) -> list[PastRow]:
    who = _labelled(fields, CONTENT, whose)
    groups = {AGGREGATE: table(fields, "aggregates")} | {
        _key(probe): table(table(table(fields, "probes"), probe), "scores") for probe in table(fields, "probes")
    }
    return [
        _judged(who, probe, _key(dimension), figure(scores, dimension))
        for probe, scores in groups.items()
        for dimension in scores
    ]


KINDS = (
    Kind("capability_judge", frozenset({"run_id", "label", "probe_id", "category", *_JUDGED}), _judgements),
    Kind("content probe_score", frozenset({"run_id", "label", "probe_id", "dimension", "score"}), _content_probe),
    Kind("content_score", frozenset({"run_id", "label", "dimension", "score", "time"}), _content),
    Kind("probe results", frozenset({"run_id", "label", "probe_id", "passed"}), _probe),
    Kind("checkpoint scores", frozenset({"run_id", "label", "iteration", "correct", "total"}), _accuracy),
    Kind("Influx buffer", frozenset({"checkpoint", "results"}), _buffered),
    Kind("capability scores", frozenset({"label", "correct", "total", "by_category"}), _capability_line),
    Kind("content scores", frozenset({"label", "aggregates"}), _content_line),
    Kind("content scores", frozenset({"label", "probes"}), _content_line),
)
"""Every kind; of two that fit, the first is meant."""


def _checkpoint(fields: Fields, suite: str) -> PastRow:
    """The checkpoint that a flat record names, as a row without figures."""
    label, iteration = name(fields, "label"), whole(fields, "iteration")
    at = moment(fields, "scored_at")
    if at is None and made_up_ordinal(moment(fields, "time"), iteration) is None:
        at = moment(fields, "time")
    return PastRow("", suite, name(fields, "model"), name(fields, "run_id"), label, iteration, (), {}, at)


def _labelled(fields: Fields, suite: str, whose: Whose) -> PastRow:
    """The checkpoint that a line names by its label alone."""
    if not whose.run or not whose.model:
        raise ValueError("such a line names no run and no model; say them with --run and --model")
    label = name(fields, "label")
    return PastRow("", suite, whose.model, whose.run, label, iteration_of(label), (), {})


def _all_counts(who: PastRow, results: Fields) -> list[PastRow]:
    """The accuracy overall and by category."""
    categories = table(results, "by_category")
    return [
        _counts(who, results, OVERALL),
        *(_counts(who, table(categories, category), _key(category)) for category in categories),
    ]


def _counts(who: PastRow, fields: Fields, category: str) -> PastRow:
    correct, total = whole(fields, "correct"), whole(fields, "total")
    values = accuracy_values(category, correct, total)
    if fields.get("accuracy") not in (None, ""):
        check_accuracy(number(fields, "accuracy"), correct, total)
    return _filled(who, CHECKPOINT_SCORES.name, (category,), values)


def _answer(who: PastRow, fields: Fields, probe: str) -> PastRow:
    response = fields.get("response")
    if response is not None and (not isinstance(response, str) or len(response) > _MOST_RESPONSE_CHARS):
        raise ValueError(f"'response' must be a text of at most {_MOST_RESPONSE_CHARS} characters")
    values = {"probe_id": probe, "passed": truth(fields, "passed"), "response": _text(response)}
    return _filled(who, PROBE_RESULTS.name, (probe,), values)


def _judged(who: PastRow, probe: str, dimension: str, score: float, category: str | None = None) -> PastRow:
    values = {"probe_id": probe, "dimension": dimension, "score": score, "category": category}
    return _filled(who, JUDGEMENTS.name, (probe, dimension), values)


def _filled(who: PastRow, table_name: str, key: tuple[str, ...], values: Mapping[str, Any]) -> PastRow:
    return replace(who, table=table_name, key=key, values=values)


def _key(value: str) -> str:
    """A key of an object, as a name."""
    return name({"name": value}, "name")


def _text(response: str | None) -> str | None:
    """A text that can be stored: one cut within a character may have ended in half of it."""
    return None if response is None else response.encode("utf-8", "replace").decode("utf-8")

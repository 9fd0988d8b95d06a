"""Whether the token limit cuts a base model's answers so often that length counts as skill."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ml_pipeline.evaluation.ask import suite_options
from ml_pipeline.printable import printable
from ml_pipeline.settings import BASE_SOURCE, Settings
from ml_pipeline.stores.duckdb import DuckDBStore
from ml_pipeline.suites.suite import Suite

_CUT = f"""
    SELECT degeneration.base_model, suite, hits, answers, options
    FROM degeneration JOIN evaluations USING (partition_key, suite, evaluation_id)
    WHERE degeneration.source = '{BASE_SOURCE}' AND signal = 'truncated' AND share >= ?
    ORDER BY ALL
"""


@dataclass(frozen=True, slots=True)
class CutBase:
    """A bare base model of whose answers to a suite the token limit `limit` cut `cut` of `answers`."""

    base_model: str
    suite: str
    cut: int
    answers: int
    limit: int

    def __str__(self) -> str:
        """How often, on which suite, at which limit, and what to set."""
        name, suite = printable(self.base_model, 60), printable(self.suite, 60)
        return (
            f"base model {name}: the limit of {self.limit} tokens cuts {self.cut} of its {self.answers} answers "
            f"({self.cut / self.answers:.0%}) to suite {suite}, so that an adapter which only answers shorter looks "
            f"better. Raise base_models.{name}.generation.{suite}.max_tokens in pipeline.yaml, then score again."
        )


def cut_bases(store: DuckDBStore, settings: Settings, suites: Sequence[Suite]) -> list[CutBase]:
    """The base models and suites of which the present token limit cuts a share of `checks.truncation.share` or more.

    Answers under another limit than that of the settings do not count: the setting was changed since. Raises as
    `DuckDBStore.query`.
    """
    return list(_found(store, settings, {suite.name: suite for suite in suites}))


def _found(store: DuckDBStore, settings: Settings, suites: dict[str, Suite]) -> Iterator[CutBase]:
    for row in store.query(_CUT, [settings.checks.truncation.share]).to_pylist():
        suite = suites.get(row["suite"])
        if suite is None or row["base_model"] not in settings.base_models:
            continue
        limit = suite_options(suite, settings.suites_for(row["base_model"])).max_tokens
        if json.loads(row["options"]).get("max_tokens") == limit:
            yield CutBase(row["base_model"], row["suite"], row["hits"], row["answers"], limit)

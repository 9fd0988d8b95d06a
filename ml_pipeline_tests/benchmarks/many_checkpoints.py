"""Ten thousand scored checkpoints, as the tables that scoring makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from ml_pipeline.stores.parquet import ParquetStore
from ml_pipeline.stores.tables import CHECKPOINT_SCORES, EVALUATIONS, PROBE_RESULTS, TABLES
from ml_pipeline_tests.stores.samples import evaluation_row, identity, key, probe_rows, score_rows

RUNS = 200
_CATEGORIES = 23
_WRITERS = 4


@dataclass(frozen=True)
class Checkpoints:
    """`count` checkpoints in 200 training runs, each asked `probes` probes in 23 categories."""

    count: int
    probes: int = 223
    _templates: dict[str, pa.Table] = field(default_factory=dict)

    def key(self, number: int) -> str:
        """The partition of one of them."""
        return key(number // RUNS + 1, run=self._run(number))

    def tables(self, number: int) -> dict[str, pa.Table]:
        """The rows of one of them, by table."""
        who = identity(number // RUNS + 1, run=self._run(number))
        passed = np.random.default_rng(number).random(self.probes) < 0.3 + 0.4 * number / self.count
        by_category = [passed[place::_CATEGORIES] for place in range(_CATEGORIES)]
        figures = {f"category {place}": (int(of.sum()), len(of)) for place, of in enumerate(by_category)}
        return {
            EVALUATIONS.name: pa.Table.from_pylist([evaluation_row(who)], schema=EVALUATIONS.schema),
            CHECKPOINT_SCORES.name: pa.Table.from_pylist(score_rows(who, **figures), schema=CHECKPOINT_SCORES.schema),
            PROBE_RESULTS.name: self._probe_results(who, passed),
        }

    def write(self, parquet: ParquetStore) -> None:
        """Write all of them as Parquet files."""

        def write_one(number: int) -> None:
            for name, rows in self.tables(number).items():
                parquet.write(TABLES[name], self.key(number), rows)

        with ThreadPoolExecutor(_WRITERS) as pool:
            for _ in pool.map(write_one, range(self.count)):
                pass

    def _run(self, number: int) -> str:
        return f"run-{number % RUNS:03d}"

    def _probe_results(self, who: Mapping[str, Any], passed: np.ndarray[Any, Any]) -> pa.Table:
        names = [f"probe_{place:03d}" for place in range(self.probes)]
        if not self._templates:
            rows = probe_rows(dict(who), **dict.fromkeys(names, True))
            categories = [f"category {place % _CATEGORIES}" for place in range(self.probes)]
            made = [row | {"category": category} for row, category in zip(rows, categories, strict=True)]
            self._templates[PROBE_RESULTS.name] = pa.Table.from_pylist(made, schema=PROBE_RESULTS.schema)
        words = [f"{who['label']} thinks of {name}: " + "it is forty-two, since " * 5 for name in names]
        given = {**who, "passed": passed, "flexible_passed": passed, "response": words}
        template = self._templates[PROBE_RESULTS.name]
        columns = [
            _filled(given[f.name], f.type, self.probes) if f.name in given else template[f.name]
            for f in template.schema
        ]
        return pa.Table.from_arrays(columns, schema=PROBE_RESULTS.schema)


def _filled(value: Any, kind: pa.DataType, length: int) -> pa.Array:
    if isinstance(value, list | np.ndarray):
        return pa.array(value, kind)
    return pa.repeat(pa.scalar(value, kind), length)

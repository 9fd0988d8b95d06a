"""Seconds to read every row of one table of 10,000 checkpoints x 223 probes, compacted against not.

    python -m ml_pipeline_tests.benchmarks.compact [--json] [--checkpoints N] [--probes N] [--repeats N]

- ours: all rows out of compacted files, by the store.
- small_files: the same rows by the store out of one file a checkpoint, as they were written.
- pyarrow_dataset: those small files by pyarrow's own dataset reader, in no order and without our checks.

The context has what compacting took, and the milliseconds of reading and of writing one checkpoint, before and after.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset

from ml_pipeline.stores.compaction import Compaction
from ml_pipeline.stores.parquet import ParquetStore
from ml_pipeline.stores.rows import conform
from ml_pipeline.stores.tables import PROBE_RESULTS
from ml_pipeline_tests.benchmarks.result import compare, interleaved, medians, print_result
from ml_pipeline_tests.stores.samples import identity, key, probe_rows

ONES = 50


def rows_of(iteration: int, template: pa.Table) -> pa.Table:
    """The template's rows as those of one checkpoint."""
    who = identity(iteration)
    for name in ("partition_key", "iteration", "label", "evaluation_id"):
        at = template.schema.get_field_index(name)
        value = pa.scalar(who[name], template.schema.field(at).type)
        template = template.set_column(at, template.schema.field(at), pa.repeat(value, template.num_rows))
    return template


def fill(store: ParquetStore, checkpoints: int, probes: int) -> pa.Table:
    """Write every checkpoint; return the rows of one."""
    verdicts = {f"probe_{i:03}": bool(i % 3) for i in range(probes)}
    template = conform(PROBE_RESULTS, key(0), probe_rows(identity(0), **verdicts))
    for i in range(checkpoints):
        store.write(PROBE_RESULTS, key(i), rows_of(i, template))
    return template


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def ones(store: ParquetStore, template: pa.Table, checkpoints: int) -> dict[str, float]:
    """Milliseconds of reading and of writing one checkpoint."""
    some = [key(i * checkpoints // ONES) for i in range(ONES)]
    reading = seconds(lambda: [store.read(PROBE_RESULTS, name) for name in some])
    new = [rows_of(checkpoints + i, template) for i in range(ONES)]
    writing = seconds(lambda: [store.write(PROBE_RESULTS, rows["partition_key"][0].as_py(), rows) for rows in new])
    for rows in new:
        store.path(PROBE_RESULTS, rows["partition_key"][0].as_py()).unlink()
    return {"read_one_ms": round(reading / ONES * 1000, 2), "write_one_ms": round(writing / ONES * 1000, 2)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="seconds to read a table, compacted against not")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--checkpoints", type=int, default=10_000)
    parser.add_argument("--probes", type=int, default=223)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        small, compacted = ParquetStore(Path(place) / "small"), ParquetStore(Path(place) / "compacted")
        fill(small, arguments.checkpoints, arguments.probes)
        template = fill(compacted, arguments.checkpoints, arguments.probes)
        compacting = seconds(lambda: Compaction(compacted).compact(PROBE_RESULTS))
        assert compacted.read_all(PROBE_RESULTS).equals(small.read_all(PROBE_RESULTS))
        folder = Path(place) / "small" / PROBE_RESULTS.name
        subjects: dict[str, Callable[[], object]] = {
            "ours": lambda: compacted.read_all(PROBE_RESULTS),
            "small_files": lambda: small.read_all(PROBE_RESULTS),
            "pyarrow_dataset": lambda: pyarrow.dataset.dataset(folder, format="parquet").to_table(),
        }
        figures = interleaved(
            {name: lambda work=work: seconds(work) for name, work in subjects.items()},  # type: ignore[misc]
            arguments.repeats,
        )
        context = {
            "checkpoints": arguments.checkpoints,
            "probes": arguments.probes,
            "compact_s": round(compacting, 2),
            "files": len(compacted.compacted.files(PROBE_RESULTS)),
            "small": ones(small, template, arguments.checkpoints),
            "compacted": ones(compacted, template, arguments.checkpoints),
            "all_figures": {name: [round(value, 3) for value in values] for name, values in figures.items()},
        }
    result = compare("compact", "s", medians(figures), more_is_better=False, context=context)
    print_result(result, as_json=arguments.json)


if __name__ == "__main__":
    main()

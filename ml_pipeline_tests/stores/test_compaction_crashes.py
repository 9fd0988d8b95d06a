"""Compaction killed at every step, and beside writers and readers in other processes: no row lost, none doubled."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ml_pipeline.stores.compaction import Compaction
from ml_pipeline.stores.parquet import ParquetStore
from ml_pipeline.stores.tables import CHECKPOINT_SCORES
from ml_pipeline_tests.stores.processes import background_python, run_python
from ml_pipeline_tests.stores.samples import key
from ml_pipeline_tests.stores.test_compaction import figures, own, scores, together

KILLED = """
import os, signal, sys
import ml_pipeline.{module} as module
step, left = module.{step}, [{calls}]
def dies(*a, **k):
    left[0] -= 1
    return step(*a, **k) if left[0] else os.kill(os.getpid(), signal.SIGKILL)
module.{step} = dies
from ml_pipeline.stores.compaction import Compaction
from ml_pipeline.stores.parquet import ParquetStore
from ml_pipeline.stores.tables import CHECKPOINT_SCORES
Compaction(ParquetStore(sys.argv[1]), 10).compact(CHECKPOINT_SCORES)
"""
STEPS = [
    ("files", "temporary_beside", 1),
    ("stores.compaction", "write_batches", 1),
    ("stores.compaction", "_check", 1),
    ("files", "Path.replace", 1),
    ("files", "Path.replace", 2),
    ("stores.disk_folder", "DiskFolder.mark", 4),
    ("stores.disk_folder", "Path.unlink", 1),
    ("stores.disk_folder", "Path.unlink", 7),
    ("stores.disk_folder", "fsync", 1),
    ("stores.disk_folder", "fsync", 2),
    ("stores.compaction", "Compaction._remove_superfluous", 1),
    ("stores.disk_folder", "Path.unlink", 23),
]


@pytest.mark.parametrize(("module", "step", "calls"), STEPS)
def test_a_kill_loses_and_doubles_nothing(tmp_path: Path, module: str, step: str, calls: int) -> None:
    folder = tmp_path / "parquet"
    store, wanted = ParquetStore(folder), {}

    def write(first: int, last: int, correct: int) -> None:
        for i in range(first, last):
            store.write(CHECKPOINT_SCORES, key(i), scores(i, correct))
            wanted[key(i)] = correct

    write(100, 114, 1)
    Compaction(store, 10).compact(CHECKPOINT_SCORES)
    write(102, 106, 2)
    write(108, 122, 3)
    assert len(together(folder)) == 2
    done = run_python(KILLED.format(module=module, step=step, calls=calls), folder)
    assert done.returncode == -9, done.stderr
    assert figures(ParquetStore(folder)) == wanted
    assert figures(store) == wanted
    Compaction(ParquetStore(folder), 10).compact(CHECKPOINT_SCORES)
    assert figures(store) == wanted
    assert own(folder) == []
    assert not [file for file in store.compacted.files(CHECKPOINT_SCORES) if not file.entries]


WRITER = """
import random, sys
from ml_pipeline.stores.parquet import ParquetStore
from ml_pipeline.stores.tables import CHECKPOINT_SCORES
from ml_pipeline_tests.stores.samples import key
from ml_pipeline_tests.stores.test_compaction import scores
folder, first, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
print("started", flush=True)
for value in range(1, rounds + 1):
    for i in range(first, first + 10):
        # A store of its own each time, as every output of an asset makes one.
        ParquetStore(folder).write(CHECKPOINT_SCORES, key(i), scores(i, value, f"e{value % 2}"))
"""
READER = """
import sys
from ml_pipeline.stores.parquet import ParquetStore
from ml_pipeline.stores.tables import CHECKPOINT_SCORES
from ml_pipeline_tests.stores.test_compaction import figures
store, seen, reads = ParquetStore(sys.argv[1]), {}, 0
print("started", flush=True)
while sys.stdin.readable():
    now = figures(store)
    assert seen.keys() <= now.keys(), f"lost: {seen.keys() - now.keys()}"
    older = {k: (seen[k], now[k]) for k in seen if now[k] < seen[k]}
    assert not older, f"went back: {older}"
    one = max(now)
    assert store.read(CHECKPOINT_SCORES, one)["correct"][0].as_py() >= now[one]
    seen, reads = now, reads + 1
    if sys.argv[2] in {str(v) for v in now.values()} and len(set(now.values())) == 1:
        break
print(reads, flush=True)
"""


def test_writers_and_a_reader_beside_compactions(tmp_path: Path) -> None:
    folder, rounds = tmp_path / "parquet", 6
    store = ParquetStore(folder)
    for i in range(100, 130):
        store.write(CHECKPOINT_SCORES, key(i), scores(i, 0))
    compactions, until = 0, time.monotonic() + 100
    with (
        background_python(READER, folder, rounds) as reader,
        background_python(WRITER, folder, 100, rounds) as one,
        background_python(WRITER, folder, 110, rounds) as two,
        background_python(WRITER, folder, 120, rounds) as three,
    ):
        while any(process.poll() is None for process in (one, two, three)) and time.monotonic() < until:
            Compaction(store, 8).compact(CHECKPOINT_SCORES)
            compactions += 1
        for process in (one, two, three, reader):
            output, errors = process.communicate(timeout=60)
            assert process.returncode == 0, errors
        assert int(output) > 3
    assert compactions > 3
    assert figures(store) == dict.fromkeys([key(i) for i in range(100, 130)], rounds)
    Compaction(store, 100).compact(CHECKPOINT_SCORES)
    assert figures(ParquetStore(folder)) == dict.fromkeys([key(i) for i in range(100, 130)], rounds)
    assert own(folder) == []

"""Files as the original left them: its DuckDB tables, its buffer, its score files, exports of its measurements."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb

from ml_pipeline.stores.duckdb import DuckDBStore
from ml_pipeline.stores.parquet import ParquetStore
from ml_pipeline.stores.score_store import ScoreStore

RUN_ID = "1b-lek-capability-auto"
EPOCH_S = 1_739_577_600


def stores(folder: Path) -> ScoreStore:
    """Stores of this program in a folder."""
    return ScoreStore(ParquetStore(folder / "parquet"), DuckDBStore(folder / "scores.duckdb"))


def database(path: Path, passed: Mapping[int, Sequence[bool]], at: str = "2026-02-19 10:00:00") -> Path:
    """Its database, with the answers to each checkpoint's probes by iteration."""
    with duckdb.connect(str(path)) as connected:
        connected.execute(
            "CREATE TABLE IF NOT EXISTS checkpoint_scores (model TEXT, run_id TEXT, label TEXT, iteration INTEGER, "
            "correct INTEGER, total INTEGER, accuracy DOUBLE, scored_at TIMESTAMP, PRIMARY KEY (run_id, label))"
        )
        connected.execute(
            "CREATE TABLE IF NOT EXISTS probe_results (model TEXT, run_id TEXT, label TEXT, probe_id TEXT, "
            "passed BOOLEAN, response TEXT, iteration INTEGER, scored_at TIMESTAMP, "
            "PRIMARY KEY (run_id, label, probe_id))"
        )
        for iteration, answers in passed.items():
            who = ["gemma-3-1b", RUN_ID, f"G1-lek @{iteration:07d}"]
            right, count = sum(answers), len(answers)
            connected.execute(
                "INSERT OR REPLACE INTO checkpoint_scores VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [*who, iteration, right, count, right / count * 100, at],
            )
            for number, answer in enumerate(answers, start=1):
                connected.execute(
                    "INSERT OR REPLACE INTO probe_results VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    [*who, f"math_{number:02d}", answer, "x" * 300, iteration, at],
                )
    return path


def buffered(iteration: int, at: str = "2026-02-19T12:00:00Z", run: str = "1b-lek") -> dict[str, Any]:
    """A line of its buffer for an unreachable Influx: one of two probes is right."""
    return {
        "checkpoint": {
            "RemoteDir": "/runs/adapters-1b-lek",
            "Filename": f"{iteration:07d}_adapters.safetensors",
            "Dirname": "adapters-1b-lek",
            "Iteration": iteration,
            "ModelTag": "gemma-3-1b",
            "Label": f"G1-lek @{iteration:07d}",
            "RunID": f"{run}-capability-auto",
        },
        "results": {
            "accuracy": 50,
            "correct": 1,
            "total": 2,
            "by_category": {"arithmetic": {"correct": 1, "total": 2}},
            "probes": {
                "math_01": {"passed": True, "response": "10063"},
                "math_02": {"passed": False, "response": "wrong"},
            },
        },
        "timestamp": at,
    }


def point(iteration: int, ordinal: int, **more: Any) -> dict[str, Any]:
    """A row of an export of its measurements, as CSV cells have it."""
    return {
        "iteration": iteration,
        "label": f"G1-lek @{iteration:07d}",
        "model": "gemma-3-1b",
        "run_id": RUN_ID,
        "time": (EPOCH_S + iteration * 1000 + ordinal) * 1_000_000_000,
        **more,
    }


def lines(path: Path, items: Sequence[object]) -> Path:
    """A file of JSON lines; texts are written as they are."""
    path.write_text("".join(f"{i if isinstance(i, str) else json.dumps(i)}\n" for i in items), encoding="utf-8")
    return path


def table(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """A CSV file with a header."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path

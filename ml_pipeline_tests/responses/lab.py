"""A project with files of responses, scored into real stores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ml_pipeline.evaluation.judges import Judge
from ml_pipeline.responses.scorer import ResponseScorer, ScoredFile
from ml_pipeline.settings import Settings
from ml_pipeline.settings_file import load_settings
from ml_pipeline.stores.duckdb import DuckDBStore
from ml_pipeline.stores.parquet import ParquetStore
from ml_pipeline.stores.score_store import ScoreStore
from ml_pipeline.suites.suite import Suite

Row = dict[str, Any]


@dataclass
class Lab:
    """The project's folder, its suites and its judge's settings."""

    root: Path
    suites: Sequence[Suite] = ()
    judge_settings: Row = field(default_factory=dict)

    @property
    def settings(self) -> Settings:
        """As pipeline.yaml has them."""
        settings = {
            "sources": {"mac": {"type": "local", "path": "runs"}},
            "base_models": {"big": {}},
            "judge": self.judge_settings,
        }
        (self.root / "pipeline.yaml").write_text(json.dumps(settings))
        return load_settings(self.root / "pipeline.yaml", environ={})

    @property
    def store(self) -> ScoreStore:
        """The project's stores."""
        return ScoreStore(ParquetStore(self.settings.parquet_path), DuckDBStore(self.settings.duckdb_path))

    @property
    def scorer(self) -> ResponseScorer:
        """Scores its files."""
        return ResponseScorer(self.settings, self.suites, self.store)

    def put(self, key: str, rows: Sequence[Row | str]) -> Path:
        """Write a file; a text is a line as it is."""
        path = self.settings.responses_path / f"{key}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
        return path

    def score(self, key: str, rows: Sequence[Row | str]) -> ScoredFile:
        """Write a file and score it."""
        self.put(key, rows)
        return self.scorer.score(key)

    def judge(self, key: str, judge: Judge) -> ScoredFile:
        """Have a file judged."""
        return self.scorer.judge(key, [judge])

    def rows(self, table: str, columns: str = "*", where: str = "true") -> list[Row]:
        """What the database has."""
        rows: list[Row] = self.store.duckdb.query(
            f"SELECT {columns} FROM {table} WHERE {where} ORDER BY ALL"
        ).to_pylist()
        return rows

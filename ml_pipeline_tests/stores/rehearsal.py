"""Scoring runs without a model: the pipeline's own code from rows that were made beforehand to every store.

A run writes down what it hands to Dagster for recording, and a run after it leaves that alone, as one of Dagster's
does. So a test may kill it at any moment, run it again, and hold all stores against the rows.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import dagster as dg
import duckdb
import pyarrow as pa

from ml_pipeline.assets.check_specs import CHECKPOINT_CHECKS
from ml_pipeline.assets.scoring_run import Event, ScoringRun
from ml_pipeline.assets.specs import CHECKPOINT_SPECS
from ml_pipeline.automation.native_crashes import CrashNotes
from ml_pipeline.checkpoints.checkpoint import Checkpoint
from ml_pipeline.evaluation.evaluator import Evaluator, StageResult
from ml_pipeline.evaluation.mark import checkpoint_scores, degeneration, heuristic_scores, probe_results
from ml_pipeline.evaluation.stages import STAGES
from ml_pipeline.reports.leaderboard import leaderboard
from ml_pipeline.reports.score_table import score_table
from ml_pipeline.reports.scores import load_scores
from ml_pipeline.settings import BaseModelSettings, Settings
from ml_pipeline.source_settings import LocalSource
from ml_pipeline.stores.io_managers import DuckDBIOManager, InfluxIOManager
from ml_pipeline.stores.points import ScorePoint, score_points
from ml_pipeline.stores.rows import conform
from ml_pipeline.stores.score_store import ScoreStore
from ml_pipeline.stores.tables import TABLES
from ml_pipeline.suites import load_suites
from ml_pipeline.suites.suite import Suite
from ml_pipeline_tests.evaluation.rows import ADAPTER, CHECKPOINT, evaluation
from ml_pipeline_tests.influxd import DATABASE, LOGIN

_BEGAN = datetime(2026, 3, 1, tzinfo=UTC)
TOKEN_VARIABLE = "REHEARSAL_INFLUX_LOGIN"

Row = dict[str, Any]


@dataclass(frozen=True)
class Work:
    """One evaluation of one checkpoint; another version is another adapter file in its place, with other answers."""

    run: str
    iteration: int
    version: int = 1

    @property
    def checkpoint(self) -> Checkpoint:
        """The checkpoint: whatever the version, of the same time, so that its points take each other's place."""
        return replace(
            CHECKPOINT,
            source="lab",
            run=self.run,
            iteration=self.iteration,
            label=f"{self.run} @{self.iteration:07d}",
            mtime_ns=CHECKPOINT.mtime_ns + self.iteration * 1000,
        )

    @property
    def key(self) -> str:
        """The partition key."""
        return self.checkpoint.key


@cache
def suites() -> tuple[Suite, ...]:
    """The shipped suites: 41 checked probes, and 6 that are judged."""
    return load_suites(["capability", "content"])


@cache
def _made(version: int) -> tuple[StageResult, ...]:
    """What the stages make of one checkpoint's answers, by the pipeline's own marking."""
    chance = random.Random(version)
    evaluations, responses, judged = [], [], []
    for suite in suites():
        one = _evaluation(Work("made", 1, version), suite)
        evaluations.append(one.row())
        for probe in suite.probes:
            asked = {**one.identity_columns(), "probe_id": probe.id, "category": probe.category}
            responses.append({**asked, **_answer(probe.prompt, chance)})
            dimensions = suite.rubric.dimensions if suite.rubric else ()
            judged += [{**asked, **_judgement(each.name, chance)} for each in dimensions]
    results = [row for suite in suites() for row in probe_results(suite, responses)]
    for row in results:
        row["passed"] = row["flexible_passed"] = chance.random() < 0.5
    by_suite = [[row for row in results if row["suite"] == suite.name] for suite in suites()]
    made = {
        "responses": {"evaluations": evaluations, "responses": responses},
        "probe_results": {"probe_results": results},
        "heuristic_scores": {"heuristic_scores": heuristic_scores(responses)},
        "degeneration": {"degeneration": degeneration(responses)},
        "checkpoint_scores": {"checkpoint_scores": [row for rows in by_suite for row in checkpoint_scores(rows)]},
        "judgements": {"judgements": judged, "judge_votes": [_vote(row) for row in judged]},
    }
    return tuple(StageResult(stage, made.get(stage, {})) for stage in STAGES)


def _evaluation(work: Work, suite: Suite) -> Any:
    return evaluation(
        checkpoint=work.checkpoint,
        suite=suite,
        adapter=replace(ADAPTER, sha256=f"{work.version:064d}"),
        scored_at=_BEGAN + timedelta(days=work.version),
    )


def _answer(prompt: str, chance: random.Random) -> Row:
    text = f"I believe it is {chance.randrange(1000)}. " + " ".join(
        chance.choices(("therefore", "river", "seven", "because", "light"), k=chance.randrange(5, 80))
    )
    return {
        "sample": 1,
        "template": None,
        "prompt": prompt,
        "rendered_prompt": f"<user>{prompt}",
        "response": text,
        "prompt_tokens": 20,
        "completion_tokens": 60,
        "finish_reason": "stop",
        "seconds": 0.5,
        "error": None,
        "choice_log_probabilities": None,
    }


def _judgement(dimension: str, chance: random.Random) -> Row:
    return {
        "rubric": "r/1",
        "dimension": dimension,
        "score": float(chance.randrange(11)),
        "unscored_reason": None,
        "judge_model": "judge",
        "explanation": None,
        "transcript": "...",
        "rubric_sha256": "r",
        "votes": 1,
        "votes_asked": 1,
    }


def _vote(judgement: Row) -> Row:
    """The one vote that a judgement was made of."""
    return {name: value for name, value in judgement.items() if not name.startswith("votes")} | {"repeat": 1}


@cache
def results_of(work: Work) -> list[StageResult]:
    """What each stage gives for this work."""
    identity = {suite.name: _evaluation(work, suite).identity_columns() for suite in suites()}
    changed = {"checkpoint_mtime_ns": work.checkpoint.mtime_ns}
    return [
        replace(
            result,
            tables={
                name: [{**row, **identity[row["suite"]], **(changed if name == "evaluations" else {})} for row in rows]
                for name, rows in result.tables.items()
            },
        )
        for result in _made(work.version)
    ]


@cache
def tables_of(work: Work) -> dict[str, pa.Table]:
    """The rows that must be stored for this work, by table name, in the order of their keys."""
    return {
        name: ordered(name, conform(TABLES[name], work.key, rows))
        for result in results_of(work)
        for name, rows in result.tables.items()
    }


def ordered(name: str, rows: pa.Table) -> pa.Table:
    """The rows of a table in the order of their keys."""
    return rows.sort_by([(column, "ascending") for column in TABLES[name].key])


@cache
def points_of(work: Work) -> list[ScorePoint]:
    """The points that must be on the server for this work."""
    return score_points(tables_of(work), suites())


@dataclass(frozen=True)
class Lab:
    """All stores of a project below `root`, and the InfluxDB 1 behind `url`; without one points wait in the buffer.

    What is handed to Dagster is written into `records`.
    """

    root: Path
    records: Path
    url: str | None = None
    influx_timeout_s: float = 5.0

    def store(self) -> ScoreStore:
        """Parquet and DuckDB."""
        return DuckDBIOManager(path=str(self.root / "scores.duckdb"), folder=str(self.root / "parquet")).store()

    def influx(self) -> InfluxIOManager:
        """The buffer and its server."""
        os.environ[TOKEN_VARIABLE] = LOGIN
        return InfluxIOManager(
            buffer_folder=str(self.root / "buffer"),
            url=self.url,
            api="v1",
            bucket=DATABASE,
            token_env=TOKEN_VARIABLE,
            timeout_s=self.influx_timeout_s,
        )

    def settings(self) -> Settings:
        """Settings as far as a scoring run looks at them."""
        source = LocalSource(type="local", path=Path())
        return Settings(root=self.root, sources={"lab": source}, base_models={"gemma-3-1b": BaseModelSettings()})

    def recorded(self) -> set[tuple[str, int, str]]:
        """(partition key, version, asset) of all that was handed to Dagster."""
        if not self.records.exists():
            return set()
        fields = [line.split(" ") for line in self.records.read_text().splitlines()]
        return {(key, int(version), asset) for key, version, asset in fields}

    def unfinished(self, works: Sequence[Work]) -> list[Work]:
        """The works of which not all assets are recorded: what a run after this one is to do."""
        recorded = self.recorded()
        assets = {spec.key.to_user_string() for spec in CHECKPOINT_SPECS}
        return [work for work in works if any((work.key, work.version, asset) not in recorded for asset in assets)]

    def in_duckdb(self, keys: Collection[str]) -> dict[str, pa.Table]:
        """The rows of some partitions by table, as any program reads them; none where there is no database yet."""
        path = self.root / "scores.duckdb"
        if not path.exists():
            return {}
        with duckdb.connect(str(path), read_only=True) as connected:
            made = {name for (name,) in connected.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
            found = {}
            for name in made & TABLES.keys():
                query = f"FROM {name} WHERE list_contains(?, partition_key) ORDER BY {', '.join(TABLES[name].key)}"
                rows = connected.sql(query, params=[list(keys)]).to_arrow_table()
                found[name] = rows.select(TABLES[name].schema.names).cast(TABLES[name].schema)
            return found

    def in_parquet(self, key: str) -> dict[str, pa.Table]:
        """The rows of one partition by table, of those that have a file."""
        parquet = self.store().parquet
        return {
            name: ordered(name, parquet.read(table, key))
            for name, table in TABLES.items()
            if parquet.path(table, key).exists()
        }


def lab_in(folder: Path, url: str | None = None) -> Lab:
    """A lab that has everything in one folder."""
    return Lab(folder, folder / "records.txt", url)


class Rehearsal(ScoringRun):
    """The scoring run as it is, but for the model."""

    def __init__(self, lab: Lab) -> None:
        context = SimpleNamespace(
            log=logging.getLogger("rehearsal"),
            run=SimpleNamespace(run_id="rehearsal"),
            selected_asset_keys={spec.key for spec in CHECKPOINT_SPECS},
            selected_asset_check_keys={check.key for check in CHECKPOINT_CHECKS},
        )
        pipeline = SimpleNamespace(settings=lab.settings, suites=suites)
        notes = CrashNotes(lab.records.parent, "rehearsal")
        super().__init__(cast(Any, context), cast(Any, pipeline), cast(Any, None), lab.store(), lab.influx(), notes)

    def score_prepared(self, work: Work) -> Iterator[Event]:
        """Store and hand out what a scoring run would of this checkpoint."""
        evaluator = SimpleNamespace(evaluate=lambda checkpoint, stages: iter(results_of(work)))
        return self._score_one(cast(Evaluator, evaluator), work.checkpoint, "")


def score(lab: Lab, works: Sequence[Work]) -> Mapping[str, str]:
    """One scoring run; returns why checkpoints failed, by key. What it finds recorded it leaves alone."""
    lab.records.parent.mkdir(parents=True, exist_ok=True)
    run = Rehearsal(lab)
    with lab.records.open("a", buffering=1) as record:
        for work in lab.unfinished(works):
            for event in run.score_prepared(work):
                if isinstance(event, dg.AssetMaterialization):
                    record.write(f"{work.key} {work.version} {event.asset_key.to_user_string()}\n")
    return run.failed


def publish(lab: Lab) -> None:
    """Store the tidy table and the leaderboard, as their assets' IO managers do."""
    store = lab.store()
    scores = load_scores(store.duckdb)
    store.parquet.write_whole("score_table", pa.Table.from_pandas(score_table(scores), preserve_index=False))
    store.duckdb.write_whole("leaderboard", pa.Table.from_pandas(leaderboard(scores), preserve_index=False))

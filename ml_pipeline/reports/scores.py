"""The input of every report: one pandas frame for each per-checkpoint table."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import pandas as pd
import pyarrow as pa

from ml_pipeline.errors import StoreError, SuiteError
from ml_pipeline.printable import printable
from ml_pipeline.settings import suggest
from ml_pipeline.stores.duckdb import DuckDBStore
from ml_pipeline.stores.table import Table
from ml_pipeline.stores.tables import CHECKPOINT_TABLES, FAILURES, IDENTITY, TRAINING_LOSS

SCORE_TABLES = (*CHECKPOINT_TABLES, TRAINING_LOSS, FAILURES)
"""The tables that reports are made of."""
EVALUATION_KEY = ["partition_key", "suite", "evaluation_id"]
IDENTITY_COLUMNS = [column.name for column in IDENTITY]


@dataclass(frozen=True)
class Scores:
    """Everything that was scored, the losses of the training, and why checkpoints failed, as frames with the columns
    of `ml_pipeline.stores.tables`."""

    evaluations: pd.DataFrame
    responses: pd.DataFrame
    probe_results: pd.DataFrame
    heuristic_scores: pd.DataFrame
    judgements: pd.DataFrame
    checkpoint_scores: pd.DataFrame
    degeneration: pd.DataFrame
    training_loss: pd.DataFrame
    failures: pd.DataFrame

    @classmethod
    def from_tables(cls, tables: Mapping[str, pa.Table]) -> Scores:
        """Take Arrow tables by name; a table that is absent counts as empty, tables of other names are ignored.

        Raises:
            StoreError: a table lacks columns; every missing column of every table is named.
        """
        problems = [
            f"table {table.name}: no column {column.name}"
            for table in SCORE_TABLES
            if table.name in tables
            for column in table.columns
            if column.name not in tables[table.name].column_names
        ]
        if problems:
            raise StoreError.from_problems(
                "report input", problems, "Rebuild the tables from the Parquet files, then make the report again."
            )
        return cls(**{table.name: _frame(table, tables.get(table.name)) for table in SCORE_TABLES})

    def only(self, *, suite: str | None = None, checkpoints: Collection[str] | None = None) -> Scores:
        """The scores of one suite, or of some checkpoints by their keys, alone; losses and failures are of no suite and
        all stay."""
        chosen = {}
        for table in CHECKPOINT_TABLES:
            frame: pd.DataFrame = getattr(self, table.name)
            wanted = frame["suite"].eq(suite) if suite is not None else frame["suite"].notna()
            if checkpoints is not None:
                wanted &= frame["partition_key"].isin(checkpoints)
            chosen[table.name] = frame[wanted].reset_index(drop=True)
        return replace(self, **chosen)

    @property
    def is_empty(self) -> bool:
        """Whether no table of checkpoints holds a row; losses alone are no scores."""
        return all(frame.empty for frame in self._frames())

    def identities(self) -> pd.DataFrame:
        """One row per evaluation (partition, suite, evaluation id): its identity columns, the newest `scored_at`.

        Taken from all tables, so that a checkpoint of which only answers exist so far is not forgotten.
        """
        return self._identities.copy()

    @cached_property
    def _identities(self) -> pd.DataFrame:
        rows = pd.concat([_without_repeats(frame[IDENTITY_COLUMNS]) for frame in self._frames()], ignore_index=True)
        newest = rows.sort_values([*EVALUATION_KEY, "scored_at"], kind="stable")
        return newest.drop_duplicates(EVALUATION_KEY, keep="last").reset_index(drop=True)

    def _frames(self) -> Iterator[pd.DataFrame]:
        for table in CHECKPOINT_TABLES:
            yield getattr(self, table.name)


def _without_repeats(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows whose evaluation is not that of the row before: stored tables hold hundreds of each in a row."""
    keys = rows[[*EVALUATION_KEY, "scored_at"]]
    return rows[keys.ne(keys.shift()).any(axis=1)]


def load_scores(store: DuckDBStore, partition_keys: Sequence[str] | None = None) -> Scores:
    """All current scores out of the database, or those of some checkpoints, which come without losses but with every
    failure, since what failed may have no scores to be known by; raises as `DuckDBStore.read` does."""
    if partition_keys is None:
        return Scores.from_tables(store.read_together([table.name for table in SCORE_TABLES]))
    tables = store.read_together([table.name for table in CHECKPOINT_TABLES], partition_keys)
    return Scores.from_tables({**tables, FAILURES.name: store.read(FAILURES.name)})


def check_suite(scores: Scores, suite: str) -> None:
    """Raise SuiteError when there are no scores of this suite."""
    known = set(scores.identities()["suite"])
    if suite not in known:
        raise SuiteError(f"no scores of suite {printable(suite, 100)!r}{suggest(suite, known)}.")


def _frame(table: Table, data: pa.Table | None) -> pd.DataFrame:
    names = [column.name for column in table.columns]
    filled = table.schema.empty_table() if data is None else data.select(names)
    frame: pd.DataFrame = filled.to_pandas()
    # Arrow's empty booleans arrive as None among True and False; pandas' own type keeps "unscored" apart from False.
    return frame.astype({"passed": "boolean"}) if "passed" in frame else frame

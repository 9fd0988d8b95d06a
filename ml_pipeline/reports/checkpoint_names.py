"""From what a person calls a checkpoint to the scored checkpoint that is meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ml_pipeline.errors import UnknownCheckpointError
from ml_pipeline.printable import printable
from ml_pipeline.settings import BASE_SOURCE
from ml_pipeline.stores.duckdb import DuckDBStore
from ml_pipeline.stores.tables import CHECKPOINT_SCORES, EVALUATIONS, JUDGEMENTS, PROBE_RESULTS

_ITERATION = re.compile(r"(?P<run>.*)@(?P<iteration>\d{1,18})", re.ASCII | re.DOTALL)
_SHOWN = 8
_TABLES = (EVALUATIONS, CHECKPOINT_SCORES, PROBE_RESULTS, JUDGEMENTS)
"""Where a scored checkpoint has rows: one that was imported is in some of them only."""


@dataclass(frozen=True, slots=True)
class ScoredCheckpoint:
    """A checkpoint of which scores are stored, and the suites that it was scored on."""

    key: str
    source: str
    run: str
    iteration: int
    label: str
    base_model: str
    suites: tuple[str, ...]

    @property
    def is_base(self) -> bool:
        """Whether it is a bare base model."""
        return self.source == BASE_SOURCE

    @property
    def names(self) -> tuple[str, ...]:
        """What it may be called besides its key, without the iteration."""
        return f"{self.source}.{self.run}", f"{self.source}/{self.run}", self.run


def scored_checkpoints(store: DuckDBStore) -> list[ScoredCheckpoint]:
    """Every checkpoint of which something is stored, by source, run and iteration; raises as `DuckDBStore.query`."""
    columns = "partition_key, source, run, iteration, label, base_model, suite"
    rows = store.query(
        "SELECT partition_key, any_value(source), any_value(run), any_value(iteration), any_value(label), "
        "any_value(base_model), list_sort(list(DISTINCT suite)) FROM ("
        + " UNION ".join(f"SELECT {columns} FROM {table.name}" for table in _TABLES)
        + ") GROUP BY partition_key ORDER BY 2, 3, 4, 1"
    )
    return [
        ScoredCheckpoint(key, source, run, iteration, label, base_model, tuple(suites))
        for key, source, run, iteration, label, base_model, suites in zip(
            *(column.to_pylist() for column in rows.columns), strict=True
        )
    ]


def find_checkpoint(name: str, known: Sequence[ScoredCheckpoint]) -> ScoredCheckpoint:
    """The checkpoint that is called so: by its key, its run and iteration (`run@160`), or a part of either that only
    one has. What fits exactly goes before an end of the run's name, and that before a part, in which upper and lower
    case count alike.

    Raises:
        UnknownCheckpointError: none is called so, or several are; the message lists the nearest, or them.
    """
    for fits in (_by_key, _by_name, _by_end, _by_part):
        found = fits(name, known)
        if len(found) == 1:
            return found[0]
        if found:
            raise UnknownCheckpointError(
                f"{printable(name, 100)!r} may be any of {len(found)} scored checkpoints: {_listed(found)}. "
                "Write more of its key."
            )
    raise UnknownCheckpointError(_unknown(name, known))


def with_run(checkpoints: Sequence[ScoredCheckpoint], run: str) -> list[str]:
    """The keys of the bare bases, and of the checkpoints of the run that is called so, or else of all runs that have
    this part in their name.

    Raises:
        UnknownCheckpointError: there is no such run.
    """
    trained = [checkpoint for checkpoint in checkpoints if not checkpoint.is_base]
    for found in (
        [checkpoint for checkpoint in trained if run in checkpoint.names],
        [checkpoint for checkpoint in trained if run.lower() in f"{_full(checkpoint)} {checkpoint.key}".lower()],
    ):
        if found:
            return [checkpoint.key for checkpoint in checkpoints if checkpoint.is_base or checkpoint in found]
    runs = list(dict.fromkeys(map(_full, trained)))
    near = difflib.get_close_matches(run, runs, n=_SHOWN, cutoff=0.3) or runs
    told = f"scored runs: {', '.join(printable(one, 100) for one in near[:_SHOWN])}" if runs else "none is scored yet"
    raise UnknownCheckpointError(f"no scored run is called {printable(run, 100)!r}; {told}.")


def _by_key(name: str, known: Sequence[ScoredCheckpoint]) -> list[ScoredCheckpoint]:
    return [checkpoint for checkpoint in known if checkpoint.key == name]


def _by_name(name: str, known: Sequence[ScoredCheckpoint]) -> list[ScoredCheckpoint]:
    run, iteration = _parts(name)
    if iteration is None:
        return [checkpoint for checkpoint in known if checkpoint.is_base and name in checkpoint.names]
    return [checkpoint for checkpoint in known if checkpoint.iteration == iteration and run in checkpoint.names]


def _by_end(name: str, known: Sequence[ScoredCheckpoint]) -> list[ScoredCheckpoint]:
    run, iteration = _parts(name)
    return [c for c in known if run and c.iteration == iteration and c.run.lower().endswith(run.lower())]


def _by_part(name: str, known: Sequence[ScoredCheckpoint]) -> list[ScoredCheckpoint]:
    run, iteration = _parts(name)
    part = run.lower()
    return [
        checkpoint
        for checkpoint in known
        if (iteration is None or checkpoint.iteration == iteration)
        and any(part in text.lower() for text in (checkpoint.key, checkpoint.label, _full(checkpoint)))
    ]


def _parts(name: str) -> tuple[str, int | None]:
    """Run and iteration; a name without '@' is all run."""
    match = _ITERATION.fullmatch(name)
    return (match["run"], int(match["iteration"])) if match else (name, None)


def _unknown(name: str, known: Sequence[ScoredCheckpoint]) -> str:
    if not known:
        return "No checkpoint is scored yet: `ml-pipeline score` scores those that it finds."
    run, _ = _parts(name)
    of_run = [checkpoint for checkpoint in known if run in checkpoint.names]
    by_key = {checkpoint.key: checkpoint for checkpoint in known}
    near = of_run or [by_key[key] for key in difflib.get_close_matches(name, by_key, n=_SHOWN, cutoff=0.4)]
    told = f"near it: {_listed(near)}" if near else f"scored are {_listed(known)}"
    return (
        f"no scored checkpoint is called {printable(name, 100)!r}; {told}. A name is a key, run@iteration, or a part "
        "that only one has; `ml-pipeline status --all` lists every checkpoint."
    )


def _listed(checkpoints: Sequence[ScoredCheckpoint]) -> str:
    more = f" and {len(checkpoints) - _SHOWN} more" if len(checkpoints) > _SHOWN else ""
    return f"{', '.join(checkpoint.key for checkpoint in checkpoints[:_SHOWN])}{more}"


def _full(checkpoint: ScoredCheckpoint) -> str:
    return f"{checkpoint.source}/{checkpoint.run}"

"""Rewriting the points of an Influx server from one time base to the other, out of the stored tables.

Run by run: the old points are deleted, then the new ones go into the buffer and are sent. What is done is noted, so
that the same command goes on after an interruption; a run that was interrupted is done again, which changes nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ml_pipeline.errors import StoreError
from ml_pipeline.files import store_errors, write_atomically
from ml_pipeline.stores.influx_buffer import InfluxBuffer, Progress, Rejected
from ml_pipeline.stores.influx_delete import PointDeleter, spans_of
from ml_pipeline.stores.influx_sending import LineSender
from ml_pipeline.stores.parquet import ParquetStore
from ml_pipeline.stores.points import ScorePoint, TimeBase, lines_by_batch, score_points, stored_point_tables
from ml_pipeline.stores.tables import EVALUATIONS, TRAINING_LOSS
from ml_pipeline.stores.training_points import training_points
from ml_pipeline.suites.suite import Suite

_OTHER: dict[TimeBase, TimeBase] = {"real": "original", "original": "real"}


@dataclass(frozen=True, slots=True)
class Moved:
    """What was rewritten, or would be: runs, partitions, points by measurement, those the server rejected.

    `first_ns` and `last_ns` are the earliest and latest time under the new base, None without points. `skipped_runs`
    were done before an interruption.
    """

    runs: int
    partitions: int
    points: Counter[str]
    first_ns: int | None
    last_ns: int | None
    skipped_runs: int
    rejected: tuple[Rejected, ...]


@dataclass(frozen=True, slots=True)
class _Partition:
    key: str
    of_training: bool


@dataclass(slots=True)
class _Tally:
    runs: int = 0
    partitions: int = 0
    points: Counter[str] = field(default_factory=Counter)
    times: list[int] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)

    def count(self, points: Sequence[ScorePoint]) -> None:
        self.partitions += 1
        self.points.update(point.measurement for point in points)
        if points:
            ours = [point.time_ns for point in points] + self.times
            self.times = [min(ours), max(ours)]

    def moved(self, skipped_runs: int) -> Moved:
        first, last = self.times or (None, None)
        return Moved(self.runs, self.partitions, self.points, first, last, skipped_runs, tuple(self.rejected))


class Retimer:
    """Rewrites every stored point to the time base `to`; `suites` must hold every suite that has stored rows.

    `notes` is the file that says what is done; what it says of another `target` (the server, and how) does not count.
    """

    def __init__(
        self, parquet: ParquetStore, suites: Iterable[Suite], to: TimeBase, notes: Path, target: str = ""
    ) -> None:
        self.to = to
        self.came_from = _OTHER[to]
        self._parquet = parquet
        self._suites = tuple(suites)
        self._notes = notes
        self._heading = {"to": to, "target": target}

    def preview(self, progress: Progress | None = None) -> Moved:
        """What `rewrite` would do now; nothing is changed or sent."""
        return self._each_run(self._count_run, progress)

    def rewrite(
        self,
        buffer: InfluxBuffer,
        sender: LineSender | None,
        deleter: PointDeleter | None,
        progress: Progress | None = None,
    ) -> Moved:
        """Rewrite the points of every run that is not noted as done; without a deleter the old ones stay.

        Without a sender the points wait in the buffer. `progress` is called with the runs done and the runs in all.

        Raises:
            StoreError: the server cannot be reached or does not delete, or a file cannot be read or written. The
                same call goes on from there.
        """

        def flush(tally: _Tally) -> None:
            if sender is None:
                return
            report = buffer.flush(sender)
            tally.rejected += report.rejected
            if report.stopped_because:
                raise StoreError(
                    f"{report.remaining.points} points wait in the buffer: {report.stopped_because}. Run the same "
                    "command again when the server is back: it goes on from here."
                )

        def rewrite_run(partitions: Sequence[_Partition], tally: _Tally) -> None:
            old = [point for partition in partitions for point in self._points(partition, self.came_from)]
            if deleter and old:
                deleter.delete(spans_of(old))
            for partition in partitions:
                points = self._points(partition, self.to)
                for batch, lines in lines_by_batch(points).items():
                    buffer.add(partition.key, batch, lines, make_room=lambda: sender and buffer.flush(sender))
                tally.count(points)
            flush(tally)

        # What waits under its old times would otherwise be sent after those were deleted.
        flush(_Tally())
        moved = self._each_run(rewrite_run, progress, note=True)
        with store_errors("remove", self._notes):
            self._notes.unlink(missing_ok=True)
        return moved

    def _count_run(self, partitions: Sequence[_Partition], tally: _Tally) -> None:
        for partition in partitions:
            tally.count(self._points(partition, self.to))

    def _each_run(
        self,
        work: Callable[[Sequence[_Partition], _Tally], None],
        progress: Progress | None,
        note: bool = False,
    ) -> Moved:
        runs, done, tally = self._runs(), self._done(), _Tally()
        skipped = len(done & runs.keys())
        for number, run_id in enumerate(sorted(runs.keys() - done), start=skipped + 1):
            work(runs[run_id], tally)
            tally.runs += 1
            if note:
                done.add(run_id)
                write_atomically(self._notes, json.dumps({**self._heading, "runs": sorted(done)}).encode())
            if progress:
                progress(number, len(runs))
        return tally.moved(skipped)

    def _runs(self) -> dict[str, list[_Partition]]:
        """Partitions by run id: those of one id share their series, whichever source they are of."""
        runs: dict[str, list[_Partition]] = {}
        for run_id, partition in self._partitions():
            runs.setdefault(run_id, []).append(partition)
        return runs

    def _partitions(self) -> Iterator[tuple[str, _Partition]]:
        evaluated = self._parquet.read_all(EVALUATIONS).select(["run_id", "partition_key"])
        for run_id, key in sorted({(row["run_id"], row["partition_key"]) for row in evaluated.to_pylist()}):
            yield run_id, _Partition(key, of_training=False)
        for key in self._parquet.partitions(TRAINING_LOSS):
            ids = self._parquet.read(TRAINING_LOSS, key)["run_id"]
            if len(ids):
                yield ids[0].as_py(), _Partition(key, of_training=True)

    def _points(self, partition: _Partition, time_base: TimeBase) -> list[ScorePoint]:
        if partition.of_training:
            return training_points(self._parquet.read(TRAINING_LOSS, partition.key).to_pylist(), time_base)
        return score_points(stored_point_tables(self._parquet, partition.key), self._suites, time_base)

    def _done(self) -> set[str]:
        """The runs that an interrupted rewrite to the same base on the same server has done."""
        try:
            noted = json.loads(self._notes.read_bytes())
            same = all(noted[name] == value for name, value in self._heading.items())
            return set(map(str, noted["runs"])) if same else set()
        except (OSError, ValueError, KeyError, TypeError):
            return set()

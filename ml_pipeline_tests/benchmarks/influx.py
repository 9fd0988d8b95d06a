"""Points a second into a real server: through the durable buffer, and by influxdb-client alone.

    python -m ml_pipeline_tests.benchmarks.influx [--json] [--checkpoints N] [--repeats N]

The server is VictoriaMetrics, on loopback, through the v2 API; a checkpoint has 223 points.

- ours: each checkpoint goes into the buffer, durably, and is sent, as scoring does it.
- replay: all checkpoints wait in the buffer, as while the server is away, and are sent together.
- direct: influxdb-client writes each checkpoint, with nothing behind it.
- direct_batching: influxdb-client's own batches in the background, 5000 points each, and its wait at the end.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.client.write.point import Point
from influxdb_client.client.write_api import SYNCHRONOUS, WriteOptions

from ml_pipeline.stores.influx import InfluxV2Sender
from ml_pipeline.stores.influx_buffer import InfluxBuffer
from ml_pipeline.stores.points import ScorePoint, lines_by_batch
from ml_pipeline_tests.benchmarks.result import compare, interleaved, medians, print_result
from ml_pipeline_tests.stores.samples import MTIME_NS, key
from ml_pipeline_tests.victoria_metrics import running_victoria_metrics, stored

PROBES = 223
BUCKET = "ours"


class Traffic:
    """Sends the points of so many new checkpoints in one of several ways."""

    def __init__(self, url: str, folder: Path, checkpoints: int) -> None:
        self.url = f"{url}/influx"
        self.checkpoints = checkpoints
        self.sent = 0
        self._folder = folder
        self._next = count(1)

    def ours(self) -> float:
        """Each checkpoint into the buffer and on to the server."""
        buffer, sender = self._buffer(), InfluxV2Sender(self.url, BUCKET)
        made = self._make()
        started = time.perf_counter()
        for partition, points in made:
            self._keep(buffer, partition, points)
            assert not buffer.flush(sender).stopped_because
        return self._rate(started)

    def replay(self) -> float:
        """All into the buffer, and then to the server."""
        buffer, sender = self._buffer(), InfluxV2Sender(self.url, BUCKET)
        made = self._make()
        started = time.perf_counter()
        for partition, points in made:
            self._keep(buffer, partition, points)
        report = buffer.flush(sender)
        assert report.sent_points == self.checkpoints * PROBES
        return self._rate(started)

    def direct(self) -> float:
        """Each checkpoint by the client, waited for."""
        made = self._make()
        with InfluxDBClient(self.url, token="") as client, client.write_api(write_options=SYNCHRONOUS) as api:
            started = time.perf_counter()
            for _, points in made:
                api.write(BUCKET, "", [_client_point(point) for point in points])
            return self._rate(started)

    def direct_batching(self) -> float:
        """All by the client's batches."""
        made = self._make()
        with InfluxDBClient(self.url, token="") as client:
            started = time.perf_counter()
            with client.write_api(write_options=WriteOptions(batch_size=5000)) as api:
                for _, points in made:
                    api.write(BUCKET, "", [_client_point(point) for point in points])
            return self._rate(started)

    def _rate(self, started: float) -> float:
        points = self.checkpoints * PROBES
        self.sent += points
        return points / (time.perf_counter() - started)

    def _buffer(self) -> InfluxBuffer:
        return InfluxBuffer(self._folder / str(next(self._next)))

    def _keep(self, buffer: InfluxBuffer, partition: str, points: Sequence[ScorePoint]) -> None:
        for batch, lines in lines_by_batch(points).items():
            buffer.add(partition, batch, lines)

    def _make(self) -> list[tuple[str, list[ScorePoint]]]:
        return [(key(number), _points(number)) for number in (next(self._next) for _ in range(self.checkpoints))]


def _points(number: int) -> list[ScorePoint]:
    tags = {"model": "gemma-3-1b", "run_id": "g1-lek-capability-auto", "label": f"G1-lek @{number:07d}"}
    return [
        ScorePoint(
            "probe_score",
            "capability",
            {**tags, "probe_id": f"probe_{place:03d}"},
            {"passed": place % 2, "iteration": number},
            MTIME_NS + number * 1_000_000_000 + place,
        )
        for place in range(PROBES)
    ]


def _client_point(point: ScorePoint) -> Any:
    return Point.from_dict(
        {
            "measurement": point.measurement,
            "tags": dict(point.tags),
            "fields": dict(point.fields),
            "time": point.time_ns,
        }
    )


def main() -> None:
    """Measure, check that every point arrived, and print."""
    parser = argparse.ArgumentParser(description="points a second into a real server")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--checkpoints", type=int, default=100, help="checkpoints a measurement")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    if not shutil.which("victoria-metrics"):
        sys.exit("`victoria-metrics` is not installed (Debian: apt-get install victoria-metrics)")
    with tempfile.TemporaryDirectory() as folder, running_victoria_metrics(Path(folder)) as url:
        traffic = Traffic(url, Path(folder) / "buffers", arguments.checkpoints)
        ways: dict[str, Callable[[], float]] = {
            "ours": traffic.ours,
            "replay": traffic.replay,
            "direct": traffic.direct,
            "direct_batching": traffic.direct_batching,
        }
        figures = interleaved(ways, arguments.repeats)
        arrived = sum(len(samples) for samples in stored(url, "probe_score_passed").values())
    assert arrived == traffic.sent, f"{arrived} of {traffic.sent} points arrived"
    context = {
        "checkpoints": arguments.checkpoints,
        "points_each": PROBES,
        "all_figures": {name: [round(value) for value in values] for name, values in figures.items()},
    }
    result = compare("influx", "points/s", medians(figures), more_is_better=True, context=context)
    print_result(result, as_json=arguments.json)


if __name__ == "__main__":
    main()

"""One tick of the discovery sensor over 10,000 known checkpoints, 10 of them new: seconds, and memory.

    python -m ml_pipeline_tests.benchmarks.tick [--json] [--checkpoints N] [--repeats N]

- ours: a tick that finds ten new files.
- full_look: the same with everything that is remembered between ticks forgotten, so that every folder is listed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import tracemalloc
from pathlib import Path

import dagster as dg

from ml_pipeline.automation.discovery_sensor import build_discovery_sensor
from ml_pipeline.checkpoints import catalogue
from ml_pipeline.resources import PipelineResource
from ml_pipeline_tests.benchmarks.result import compare, medians, print_result
from ml_pipeline_tests.checkpoints.files import write_checkpoint

RUNS = 200
NEW = 10


class Tick:
    """A project of so many checkpoints in 200 run folders, and a sensor over it."""

    def __init__(self, root: Path, checkpoints: int, instance: dg.DagsterInstance) -> None:
        self.root, self.instance, self.cursor = root, instance, ""
        self.next_iteration = checkpoints // RUNS + 1
        (root / "base.gguf").write_bytes(b"GGUF")
        settings = {
            "sources": {"mac": {"type": "local", "path": "runs"}},
            "families": [{"prefix": "tiny", "model": "tiny", "short": "T"}],
            "base_models": {"tiny": {"gguf": "base.gguf"}},
            "discovery": {"settle_s": 0},
        }
        (root / "pipeline.yaml").write_text(json.dumps(settings))
        for run in range(RUNS):
            for iteration in range(1, self.next_iteration):
                self._add(run, iteration)
        self.tick()

    def seconds(self, *, forget: bool) -> float:
        """Seconds of a tick that finds ten new checkpoints."""
        for run in range(NEW):
            self._add(run, self.next_iteration)
        self.next_iteration += 1
        if forget:
            catalogue.forget_everything()
        start = time.perf_counter()
        self.tick()
        return time.perf_counter() - start

    def tick(self) -> None:
        """One tick, its additions and its cursor taken."""
        context = dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursor,
            resources={"pipeline": PipelineResource(config_path=str(self.root / "pipeline.yaml"))},
        )
        result = build_discovery_sensor(5)(context)
        assert isinstance(result, dg.SensorResult), result
        for addition in result.dynamic_partitions_requests or ():
            self.instance.add_dynamic_partitions("checkpoint", list(addition.partition_keys))
        self.cursor = result.cursor or ""

    def _add(self, run: int, iteration: int) -> None:
        folder = self.root / "runs" / f"adapters-tiny-{run:03d}"
        write_checkpoint(folder, f"{iteration:07d}_adapters.safetensors", mtime_ns=1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="one tick of the discovery sensor")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--checkpoints", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        tempfile.TemporaryDirectory() as records,
        dg.DagsterInstance.local_temp(records) as instance,
    ):
        subject = Tick(Path(folder), arguments.checkpoints, instance)
        time.sleep(
            2
        )  # folders changed within their clock's granularity are listed again, which is not what is measured
        subject.seconds(forget=False)
        figures: dict[str, list[float]] = {"ours": [], "full_look": []}
        for _ in range(arguments.repeats):
            figures["ours"].append(subject.seconds(forget=False))
            figures["full_look"].append(subject.seconds(forget=True))
        tracemalloc.start()
        subject.seconds(forget=False)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    context = {
        "checkpoints": arguments.checkpoints,
        "run_folders": RUNS,
        "new": NEW,
        "peak_memory_mb": round(peak / 1e6, 1),
        "all_figures": {name: [round(value, 3) for value in values] for name, values in figures.items()},
    }
    result = compare("tick", "s", medians(figures), more_is_better=False, context=context)
    print_result(result, as_json=arguments.json)


if __name__ == "__main__":
    main()

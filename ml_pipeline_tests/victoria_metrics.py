"""VictoriaMetrics: a real server of line protocol, and reading back what it has."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from ml_pipeline.stores.influx import InfluxV2Sender
from ml_pipeline_tests.servers import free_port, require_binary, running


@contextmanager
def running_victoria_metrics(folder: Path) -> Iterator[str]:
    """The URL of a server of our own, which keeps one sample a series and millisecond."""
    binary = require_binary("victoria-metrics", "victoria-metrics")
    url = f"http://127.0.0.1:{free_port()}"
    command = [
        binary,
        f"-storageDataPath={folder / 'data'}",
        f"-httpListenAddr={url.removeprefix('http://')}",
        "-retentionPeriod=100y",
        "-dedup.minScrapeInterval=1ms",
    ]

    def ready() -> bool:
        try:
            return httpx.get(f"{url}/health", timeout=1).is_success
        except httpx.HTTPError:
            return False

    with running(command, folder / "log.txt", ready):
        yield url


def stored(url: str, match: str) -> dict[tuple[str, ...], list[tuple[int, float]]]:
    """What the server has of metrics like `match`: {(metric, label values by label name): [(ms, value), ...]}.

    New series take the server a while to find. So it is first sent a point of its own kind, and what was sent before
    that is there once that is.
    """
    sentinel = f"sentinel_{time.time_ns()}"
    assert InfluxV2Sender(f"{url}/influx", "ours").send([f"{sentinel} a=1 1772366400000000000"]).kind == "written"
    give_up_at = time.monotonic() + 30
    while not _export(url, f"{sentinel}_a"):
        assert time.monotonic() < give_up_at, "the server never showed what it had acknowledged"
        time.sleep(0.2)
    series = {}
    for one in _export(url, match):
        labels = one["metric"]
        name = (labels.pop("__name__"), *(labels[k] for k in sorted(labels) if k != "db"))
        series[name] = list(zip(one["timestamps"], one["values"], strict=True))
    return series


def _export(url: str, match: str) -> list[dict[str, Any]]:
    httpx.get(f"{url}/internal/force_flush", timeout=10).raise_for_status()
    answer = httpx.get(f"{url}/api/v1/export", params={"match[]": f'{{__name__=~"{match}"}}'}, timeout=10)
    return [json.loads(line) for line in answer.raise_for_status().text.splitlines()]

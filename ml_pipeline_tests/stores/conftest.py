"""The stand-in for InfluxDB 2 and 3, running."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Thread

import pytest

from ml_pipeline_tests.stores.influx_double import Double


@pytest.fixture
def double() -> Iterator[Double]:
    with Double() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.hang.set()
            server.shutdown()
            thread.join()

"""Answers of hostile HTTP servers, to all of the program that asks one: each ends in an error or a value, soon."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ml_pipeline.alerts.webhook import post
from ml_pipeline.backend_settings import HttpSettings
from ml_pipeline.backends.http.adapter_slot import AdapterSlot
from ml_pipeline.backends.http.client import ApiClient
from ml_pipeline.backends.http.identity import find_model
from ml_pipeline.backends.http.requester import Requester
from ml_pipeline.backends.http_answer import HttpError
from ml_pipeline.backends.loopback_http import HttpClient
from ml_pipeline.errors import AdapterError, AlertError, BackendError, StoreError
from ml_pipeline.settings import InfluxSettings
from ml_pipeline.stores.influx import InfluxV1Sender, InfluxV2Sender, InfluxV3Sender
from ml_pipeline.stores.influx_delete import Span, make_deleter
from ml_pipeline_tests.attacks.bounded import run_bounded
from ml_pipeline_tests.attacks.conftest import Held
from ml_pipeline_tests.attacks.hostile_server import ANSWERS, DRIPS, HostileServer

TIMEOUT_S = 1.0
BY = "one place that reads bodies raw, with bounds and a deadline"


def with_client(url: str, ask: Callable[[ApiClient], Any]) -> Any:
    settings = HttpSettings(
        type="http", url=url, connect_timeout_s=1, silence_timeout_s=TIMEOUT_S, answer_timeout_s=TIMEOUT_S, attempts=1
    )

    async def talk() -> Any:
        client = ApiClient(settings)
        try:
            return await ask(client)
        finally:
            await client.close()

    return asyncio.run(talk())


async def every_event(client: ApiClient) -> int:
    return len([event async for event in client.events("/v1/chat/completions", {"messages": []})])


def requester(client: ApiClient) -> Requester:
    return Requester(client, HttpSettings(type="http", url=client.where, attempts=1, longest_wait_s=1))


def loopback(port: int) -> HttpClient:
    return HttpClient(
        lambda port, timeout_s: socket.create_connection(("127.0.0.1", port), timeout_s),
        port,
        connect_timeout_s=1,
        silence_timeout_s=TIMEOUT_S,
        answer_timeout_s=TIMEOUT_S,
    )


def deletes(url: str, api: str) -> None:
    deleter = make_deleter(InfluxSettings(url=url, api=api, timeout_s=TIMEOUT_S))
    assert deleter is not None
    deleter.delete([Span("m", {"run_id": "r"}, 1, 2)])


TARGETS: dict[str, Callable[[HostileServer], object]] = {
    "http: one answer": lambda server: with_client(server.url, lambda client: client.get("/v1/models")),
    "http: a stream": lambda server: with_client(server.url, every_event),
    "http: an upload": lambda server: with_client(server.url, lambda client: client.post("/x", {}, "DELETE")),
    "http: models": lambda server: with_client(server.url, lambda client: find_model(requester(client), None)),
    "http: Ollama": lambda server: with_client(
        server.url, lambda client: AdapterSlot(requester(client), "base", "ollama").begin()
    ),
    "http: vLLM": lambda server: with_client(
        server.url, lambda client: AdapterSlot(requester(client), "base", "vllm").begin()
    ),
    "started server: one answer": lambda server: loopback(server.port).post("/x", {}),
    "started server: a stream": lambda server: list(loopback(server.port).events("/x", {})),
    "started server: health": lambda server: loopback(server.port).healthy(TIMEOUT_S),
    "Influx v1": lambda server: InfluxV1Sender(server.url, "b", timeout_s=TIMEOUT_S).send(["m a=1 1"]).kind,
    "Influx v2": lambda server: InfluxV2Sender(server.url, "b", timeout_s=TIMEOUT_S).send(["m a=1 1"]).kind,
    "Influx v3": lambda server: InfluxV3Sender(server.url, "b", timeout_s=TIMEOUT_S).send(["m a=1 1"]).kind,
    "deletion v1": lambda server: deletes(server.url, "v1"),
    "deletion v2": lambda server: deletes(server.url, "v2"),
    "webhook": lambda server: post(f"{server.url}/hook", {"text": "x"}, TIMEOUT_S),
}
ERRORS = (HttpError, BackendError, AdapterError, StoreError, AlertError)


def ask_all(name: str) -> dict[str, list[Any]]:
    """What comes of the answer `name` to each target, and in how many seconds."""
    server = HostileServer((ANSWERS | DRIPS)[name])

    def outcome(ask: Callable[[HostileServer], object]) -> list[Any]:
        began = time.monotonic()
        try:
            said = f"value {ask(server)!r:.80}"
        except ERRORS as error:
            said = f"{type(error).__name__}: {error!s:.300}"
        return [said, time.monotonic() - began]

    # What waits can wait together.
    with ThreadPoolExecutor(len(TARGETS) if name in DRIPS else 1) as pool:
        return dict(zip(TARGETS, pool.map(outcome, TARGETS.values()), strict=True))


def checked(name: str, held: Held, seconds: float) -> dict[str, str]:
    outcome = run_bounded(ask_all, name, memory_mb=1500, cpu_s=100)
    assert outcome.error is None
    for target, (said, took_s) in outcome.value.items():
        assert took_s < TIMEOUT_S + 6, f"{target}: {took_s:.1f} s: {said}"
    held(outcome, attack=f"body: {name}, {len(TARGETS)} ways to ask", by=BY, seconds=seconds, grown_mb=250)
    return {target: said for target, (said, _) in outcome.value.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ANSWERS)
def test_a_hostile_answer_is_bounded(name: str, held: Held) -> None:
    found = checked(name, held, 60)
    if "gzip in gzip" in name or name in ("brotli", "zstd"):
        assert "which was not asked for" in found["http: one answer"]
        assert "which was not asked for" in found["started server: one answer"]
    if name == "gzip of 400 MB":
        assert "larger than 67108864 bytes" in found["http: one answer"]
    assert found["webhook"].startswith(("value None", "AlertError"))


@pytest.mark.slow
@pytest.mark.parametrize("name", DRIPS)
def test_a_dripping_answer_ends_by_its_time(name: str, held: Held) -> None:
    found = checked(name, held, 40)
    if name in ("a dripping body", "dripping chunks"):
        assert "no whole answer in 1 s" in found["http: one answer"]
        assert "no whole answer in 1 s" in found["started server: one answer"]
    if name == "dripping headers":
        assert found["Influx v2"] == "value 'unavailable'"

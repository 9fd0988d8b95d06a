"""Posting to a real server: what arrives, and that no server holds it up or sees its address in a log."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

import pytest

from ml_pipeline.alerts.webhook import post
from ml_pipeline.errors import AlertError
from ml_pipeline_tests.hook_server import HookServer, hook_server
from ml_pipeline_tests.servers import free_port

SECRET = "T0SECRET"


@pytest.fixture
def server() -> Iterator[HookServer]:
    with hook_server() as running:
        yield running


@pytest.mark.parametrize("status", [200, 202, 204])
def test_what_is_posted_arrives(server: HookServer, status: int) -> None:
    server.answer = status
    post(f"{server.url}/services/{SECRET}?a=b", {"text": "ünï"}, 5)
    assert server.posted == [(f"/services/{SECRET}?a=b", {"text": "ünï"})]


@pytest.mark.parametrize("status", [307, 401, 404, 429, 500])
def test_any_other_answer_is_an_error_and_no_redirect_is_followed(server: HookServer, status: int) -> None:
    server.answer = status
    with pytest.raises(AlertError, match=f"{server.url} answered with status {status}") as caught:
        post(f"{server.url}/{SECRET}", {}, 5)
    assert SECRET not in str(caught.value)
    assert len(server.posted) == 1


@pytest.mark.parametrize("answer", ["hang", "dribble"])
def test_no_server_takes_longer_than_the_time_out(server: HookServer, answer: str) -> None:
    server.answer = answer
    began = time.monotonic()
    with pytest.raises(AlertError, match=r"did not answer within 0\.5 s") as caught:
        post(f"{server.url}/{SECRET}", {}, 0.5)
    assert time.monotonic() - began < 3
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("address", ["http://127.0.0.1:{port}/{secret}", "http://[::1/{secret}", "http:///{secret}"])
def test_a_dead_server_or_a_bad_address_is_an_error_without_the_secret(address: str) -> None:
    with pytest.raises(AlertError) as caught:
        post(address.format(port=free_port(), secret=SECRET), {}, 2)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_no_log_has_the_address(server: HookServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    post(f"{server.url}/{SECRET}", {}, 5)
    server.answer = 500
    with pytest.raises(AlertError):
        post(f"{server.url}/{SECRET}", {}, 5)
    assert SECRET not in caplog.text
    logging.getLogger("httpx").info("others are still logged")
    assert "others are still logged" in caplog.text

"""What waits to be told: kept once, in order, bounded; and the message made of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ml_pipeline.alerts import outbox as module
from ml_pipeline.alerts.message import message
from ml_pipeline.alerts.outbox import FailedCheck, Outbox
from ml_pipeline.monitoring_settings import LinksSettings


def failed(number: int, **changes: object) -> FailedCheck:
    return FailedCheck.model_validate(
        {
            "id": f"id{number}",
            "check": "not_worse_than_base",
            "asset": "checkpoint_scores",
            "partition": f"mac.run@{number}",
            "severity": "error",
            "description": f"capability: −{number} points",  # noqa: RUF001 - a minus sign
            "failed_at": "2026-01-01T00:00:00+00:00",
            **changes,
        }
    )


def test_what_is_kept_comes_back_oldest_first_until_it_is_removed(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "alerts")
    assert outbox.waiting(10) == {}
    for number in range(3):
        assert outbox.add(failed(number))
    first = outbox.waiting(2)
    assert list(first.values()) == [failed(0), failed(1)]
    outbox.remove(first)
    outbox.remove(first)
    assert list(outbox.waiting(10).values()) == [failed(2)]


def test_a_damaged_file_is_dropped_and_holds_nobody_up(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    (tmp_path / "0.json").write_text("{")
    outbox.add(failed(1))
    assert list(outbox.waiting(10).values()) == [failed(1)]
    assert not (tmp_path / "0.json").exists()


def test_no_more_than_so_many_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 2)
    outbox = Outbox(tmp_path)
    assert [outbox.add(failed(number)) for number in range(3)] == [True, True, False]


def test_the_message_says_it_in_a_text_and_in_fields() -> None:
    links = LinksSettings(report="https://x/report.html", dagster="http://d:3000/")
    made = message([failed(1), failed(2, partition=None, severity="warn")], links, {"topic": "ml"})
    expected = (
        "ml_pipeline: 2 checks failed\n"
        "ERROR mac.run@1 not_worse_than_base: capability: −1 points\n"  # noqa: RUF001 - a minus sign
        "WARN checkpoint_scores not_worse_than_base: capability: −2 points\n"  # noqa: RUF001 - a minus sign
        "Report: https://x/report.html\n"
        "Dagster: http://d:3000/"
    )
    assert made["text"] == made["content"] == made["message"] == expected
    assert (made["topic"], made["allowed_mentions"]) == ("ml", {"parse": []})
    assert made["failed_checks"][0] == {
        **failed(1).model_dump(),
        "url": "http://d:3000/assets/checkpoint_scores?view=checks&checkDetail=not_worse_than_base",
    }


def test_many_failures_make_a_text_that_every_service_takes() -> None:
    made = message([failed(number, description="x" * 300) for number in range(40)], LinksSettings(), {})
    assert len(made["content"]) <= 1900
    assert len(made["failed_checks"]) == 40
    short = message([failed(number) for number in range(40)], LinksSettings(), {})
    assert short["text"].endswith("and 30 more")
    assert short["failed_checks"][0]["url"] is None

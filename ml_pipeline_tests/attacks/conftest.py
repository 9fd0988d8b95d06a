"""All tests here have the marker `attack`; what each took is shown in a table at the end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ml_pipeline_tests.attacks.bounded import Outcome

Held = Callable[..., None]
_HERE = Path(__file__).parent
_PROPERTY = "attack"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder."""
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.attack)


@pytest.fixture
def held(record_property: Callable[[str, object], None]) -> Held:
    """Asserts that an attack took no more than it may, and adds it to the table.

    Call it as `held(outcome, attack="gzip in gzip", by="one layer is decoded", seconds=2, grown_mb=100)`.
    """

    def check(outcome: Outcome, *, attack: str, by: str, seconds: float, grown_mb: float) -> None:
        record_property(_PROPERTY, (attack, by, outcome.seconds, outcome.peak_mb))
        assert outcome.seconds <= seconds, f"{attack} took {outcome.seconds:.1f} s, and may take {seconds:g}"
        assert outcome.grown_mb <= grown_mb, f"{attack} took {outcome.grown_mb:.0f} MB, and may take {grown_mb:g}"

    return check


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table: attack, held by, time, peak memory."""
    rows = [
        value
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, ())
        for name, value in getattr(report, "user_properties", ())
        if name == _PROPERTY and report.when == "call"
    ]
    if rows:
        terminalreporter.section("attacks")
        terminalreporter.line(f"{'s':>6} {'peak MB':>8}  attack: held by")
    for attack, by, seconds, peak_mb in rows:
        terminalreporter.line(f"{seconds:6.2f} {peak_mb:8.0f}  {attack}: {by}")

"""The report in a real browser: it fits, asks for nothing, and has no serious fault of accessibility."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser

from ml_pipeline.reports.html_report import write_report
from ml_pipeline_tests.browser import chromium, visit
from ml_pipeline_tests.reports.sample_scores import Checkpoint, sample_scores, scores_of

MANY = 250
"""Checkpoints of each of two runs."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    folder, made = tmp_path_factory.mktemp("reports"), dict[int, Path]()

    def make(checkpoints: int) -> Path:
        if checkpoints not in made:
            made[checkpoints] = write_report(sample_scores(checkpoints), folder / f"{checkpoints}.html")
        return made[checkpoints]

    return make


@pytest.mark.parametrize("width", [390, 1280, 1920])
@pytest.mark.parametrize("checkpoints", [1, 8, MANY])
def test_it_fits_and_asks_for_nothing(
    browser: Browser, report: Callable[[int], Path], checkpoints: int, width: int
) -> None:
    with visit(browser, report(checkpoints), width=width) as visited:
        assert visited.overflow() <= 0
        visited.open_details()
        assert visited.overflow() <= 0
        assert visited.requests == []
        assert visited.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("checkpoints", [1, 8])
def test_it_is_accessible(
    browser: Browser, report: Callable[[int], Path], checkpoints: int, scheme: Literal["light", "dark"]
) -> None:
    with visit(browser, report(checkpoints), scheme=scheme) as visited:
        visited.open_details()
        assert visited.faults() == []


def test_a_fault_would_be_found(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text("<p style='color: #aaa; background: #fff; width: 3000px'>pale <img src='http://127.0.0.1:9/x.png'>")
    with visit(browser, page) as visited:
        assert visited.overflow() > 1000
        assert any(fault.startswith("color-contrast") for fault in visited.faults())
        assert visited.requests == ["http://127.0.0.1:9/x.png"]
        assert visited.complaints


def test_it_fits_on_paper(browser: Browser, report: Callable[[int], Path]) -> None:
    # A4 with 1 cm of margins is 718 CSS pixels wide.
    with visit(browser, report(8), width=718) as visited:
        visited.page.emulate_media(media="print")
        assert visited.overflow() <= 0


def test_hostile_names_break_nothing(browser: Browser, tmp_path: Path) -> None:
    name = "</style><script>document.title = 'broken'</script>" + "x" * 300
    scores = scores_of(Checkpoint(name, 10, {name: True, "b": False}, categories={name: name}, base_model=name))
    with visit(browser, write_report(scores, tmp_path / "report.html"), width=390) as visited:
        assert visited.overflow() <= 0
        assert visited.page.title() == "Checkpoint scores"
        assert visited.complaints == []

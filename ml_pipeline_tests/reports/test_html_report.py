from __future__ import annotations

import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from ml_pipeline.errors import StoreError
from ml_pipeline.reports.html_report import report_html, write_report
from ml_pipeline.reports.scores import Scores
from ml_pipeline_tests.reports.sample_scores import Checkpoint, sample_scores, scores_of

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Reads a page as a browser would: its elements, whether they nest, and its words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(report_html(sample_scores()))


def test_says_what_matters_in_words(page: Page) -> None:
    for words in (
        "10 checkpoints of 2 runs",
        "Best: iteration 500, 61% [40\u201375] of 36 probes right, as the highest of 5 about 3 points too high. "
        "Better than the base (25%): +36 points [+8 to +58]",
        "Trouble. Degenerates from iteration 20: 100% truncated answers (0% in the base)",
        "1 lost, 14 gained.",
        "backend gave no answer: timed out after 60 s",
        "judge's answer held no JSON",
        "lora, rank 8, scale 20; each changed a logit by at least",
        "ab12ab12ab12",
    ):
        assert words in page.text


def test_is_accessible(page: Page) -> None:
    assert page.named("html") == [{"lang": "en"}]
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert all(heading.get("scope") in ("col", "row") for heading in page.named("th"))
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in page.named("svg"))
    assert len(page.named("svg")) == 4
    assert "Accuracy: base 25%, iteration 100 33%" in str(page.named("svg")[0]["aria-label"])


def test_ids_are_unique_and_references_resolve(page: Page) -> None:
    ids = [str(attributes["id"]) for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.elements:
        for name in ("href", "xlink:href", "aria-labelledby"):
            if name in attributes:
                assert str(attributes[name]).removeprefix("#") in ids


def test_needs_no_network_and_runs_nothing(page: Page) -> None:
    assert {"script", "link", "img", "iframe", "object", "form"}.isdisjoint(tag for tag, _ in page.elements)
    text = report_html(scores_of(Checkpoint("r", 10, {"a": True})))
    assert set(re.findall(r"https?://[^\s\"']+", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert "default-src 'none'" in text


HOSTILE = "</pre></style><script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{ 7*7 }}\x00\u202e"


def test_hostile_text_is_shown_not_obeyed() -> None:
    base = Checkpoint("tiny", 0, {"p": True, HOSTILE: True}, source="base", responses={"p": HOSTILE})
    bad = Checkpoint(
        HOSTILE,
        10,
        {"p": False, HOSTILE: False},
        base_model=HOSTILE,
        categories={"p": HOSTILE, HOSTILE: HOSTILE},
        responses={"p": HOSTILE, HOSTILE: HOSTILE * 1000},
    )
    page = Page(report_html(scores_of(base, bad)))
    assert {"script", "img"}.isdisjoint(tag for tag, _ in page.elements)
    assert "<script>alert(1)</script>" in page.text
    assert "{{ 7*7 }}" in page.text
    assert f"{1000 * len(HOSTILE) - 3000} more characters" in page.text


def test_a_text_that_utf8_cannot_hold_does_not_cost_the_report(tmp_path: Path) -> None:
    scores = scores_of(Checkpoint("tiny", 0, {"p": False}, source="base"), Checkpoint("r", 10, {"p": True}))
    scores.probe_results["response"] = scores.probe_results["response"].astype("object")
    scores.probe_results.loc[0, "response"] = "half \ud83d"
    assert "half ?" in write_report(scores, tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("checkpoints", [1, 250])
def test_any_number_of_checkpoints(checkpoints: int) -> None:
    text = report_html(sample_scores(checkpoints))
    page = Page(text)
    assert f"{2 * checkpoints} checkpoints of 2 runs" in page.text
    assert (f"All {checkpoints} checkpoints" in page.text) == (checkpoints > 24)
    assert len(text) < 2_000_000


def test_protocols_are_sections_of_their_own() -> None:
    other = Checkpoint("r", 20, {"a": True}, protocol_id="protocol-2")
    page = Page(report_html(scores_of(Checkpoint("r", 10, {"a": True}), other)))
    assert [attributes.get("id") for attributes in page.named("section") if attributes.get("class") == "run"] == [
        "run-1",
        "run-2",
    ]
    assert "protocol-1" in page.text
    assert "protocol-2" in page.text


def test_no_calm_is_claimed_where_nothing_could_be_compared() -> None:
    page = Page(report_html(scores_of(Checkpoint("r", 10, {"a": True}))))
    assert "No sign of trouble" not in page.text
    assert "no base to compare with" in page.text


def test_a_judged_suite_shows_its_dimensions_and_no_accuracy() -> None:
    scores = scores_of(Checkpoint("r", 10, {"a": False}, suite="content", judge={"a": 7.0}))
    page = Page(report_html(scores))
    assert "judge: avg" in page.text
    assert "7.0" in page.text
    assert "accuracy [95%]" not in page.text
    assert "not scored" not in page.text


def test_empty_input_says_what_to_do() -> None:
    assert "No scores yet." in Page(report_html(Scores.from_tables({}))).text


def test_the_same_scores_give_the_same_file_and_a_time_only_on_request(tmp_path: Path) -> None:
    scores = sample_scores(1)
    first = write_report(scores, tmp_path / "deep" / "a.html").read_bytes()
    second = write_report(scores, tmp_path / "b.html").read_bytes()
    assert first == second
    assert b"report made" not in first
    made = report_html(Scores.from_tables({}), datetime(2026, 2, 3, 4, 5, tzinfo=UTC))
    assert "report made 2026-02-03 04:05 UTC" in made
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.html", "deep"]


def test_a_path_that_cannot_be_written_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="cannot write"):
        write_report(Scores.from_tables({}), tmp_path / "file" / "report.html")

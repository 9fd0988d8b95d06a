"""Hostile names and words in every place where the program shows one: on terminals, in logs, in Dagster, in files.

The places: `discover`, `status`, `score --dry-run`, `show`, `compare`, `top`, `watch`, the score table, messages of
errors and progress, the report, Dagster's metadata, descriptions of checks, alerts, and keys.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import dagster as dg
import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import save_file

from ml_pipeline.alerts.message import message
from ml_pipeline.alerts.outbox import FailedCheck
from ml_pipeline.assets.check_specs import ANSWERS_ARE_SCORED
from ml_pipeline.assets.checks import unscored_check
from ml_pipeline.assets.metadata import fact_value, markdown_list, markdown_table
from ml_pipeline.assets.run_freshness import freshness_evaluation
from ml_pipeline.automation.discovery_sensor import _observation
from ml_pipeline.checkpoints.catalogue import Catalogue
from ml_pipeline.checkpoints.naming import escaped
from ml_pipeline.checkpoints.run_pace import StalledRun
from ml_pipeline.errors import CheckpointError, MlPipelineError, SettingsError
from ml_pipeline.markdown import plain_words
from ml_pipeline.monitoring_settings import FreshnessCheck, LinksSettings, UnscoredCheck
from ml_pipeline.progress import LogProgress, RichProgress
from ml_pipeline.reports.html_report import report_html
from ml_pipeline_tests.attacks.hostile_names import EVIL, FORGED, WORDS, deceit_in, folder_names
from ml_pipeline_tests.cli.lab import Lab, eight
from ml_pipeline_tests.reports.sample_scores import failed, scores_of

KINDS = list(WORDS)
_LIVE_MARKDOWN = re.compile(r"(?<!\\)[\[\]<>!`|*_~]|(?<!\\)://|(?i:https?)(?=[:/\\])|(?i:www)(?=[.\\])")


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    return Lab(tmp_path, monkeypatch)


def put_run(folder: Path, iteration: int = 100) -> None:
    folder.mkdir(parents=True)
    save_file({"x.lora_a": np.zeros((2, 2), np.float32)}, folder / f"{iteration:07}_adapters.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"lora_parameters": {"rank": 2, "scale": 1.0}}))


@pytest.fixture
def named(lab: Lab) -> Lab:
    """A source whose run folders have all the names, and weights that cannot be used in folders of the same names."""
    lab.configure(discovery={"settle_s": 0})
    for number, name in enumerate(folder_names().values()):
        put_run(lab.root / "runs" / f"adapters-{name}")
        other = lab.root / "runs" / f"adapters-{number}{name}"[:180]
        other.mkdir(exist_ok=True)
        (other / "pytorch_model.bin").write_bytes(b"x")
        (other / f"{name}.safetensors").write_bytes(b"x")
    return lab


@pytest.mark.parametrize("command", [("discover",), ("status", "--all"), ("watch", "--once")])
def test_folders_of_another_machine_deceive_nobody_at_the_terminal(named: Lab, command: tuple[str, ...]) -> None:
    done = named.run(*command, width=5000)
    assert done.exit_code == 0, done.output
    assert deceit_in(done.output) == []
    assert EVIL in done.output or command[0] == "watch"


def test_the_lines_of_score_deceive_nobody(named: Lab) -> None:
    command = [sys.executable, "-c", "from ml_pipeline.cli.program import run; run()", "score", "--dry-run"]
    done = subprocess.run(command, cwd=named.root, capture_output=True, text=True, timeout=120, check=True)
    assert "10 checkpoints, 10 to score" in done.stdout
    assert EVIL in done.stderr
    assert deceit_in(done.stdout + done.stderr) == []


def test_every_kind_of_name_is_found_or_refused_by_one_line(named: Lab) -> None:
    found = Catalogue(named.settings).look()
    assert len(found.checkpoints) + len(found.problems) > len(WORDS)
    for checkpoint in found.checkpoints:
        assert re.fullmatch(r"[A-Za-z0-9._=+@-]{1,200}", checkpoint.key)
    for problem in found.problems:
        assert len(problem.splitlines()) == 1
        assert deceit_in(problem) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_answers_and_names_of_a_scored_checkpoint_deceive_nobody(lab: Lab, kind: str) -> None:
    words = WORDS[kind]
    name = words.replace("/", "-")[:40]
    before = eight("a", base_model=name, responses=dict.fromkeys("abcdefgh", words))
    after = eight(
        "b", "c", iteration=20, base_model=name, run=f"lek/{name}", responses=dict.fromkeys("abcdefgh", words)
    )
    lab.put(replace(before, run=name), after)
    key = after.partition_key
    for command in (
        ("top",),
        ("top", "--suite", "capability"),
        ("show", key),
        ("show", key, "--answers"),
        ("compare", replace(before, run=name).partition_key, key, "--answers"),
        ("watch", "--once"),
    ):
        done = lab.run(*command, width=5000)
        assert done.exit_code == 0, done.output
        assert deceit_in(done.output) == [], command
    for wrong in (("show", f"{words}?"), ("show", key, "--answers", f"{words}?"), ("compare", f"{words}?", key)):
        done = lab.run(*wrong, width=5000)
        assert done.exit_code == 2, done.output
        assert deceit_in(done.output) == [], wrong
    for command in (("show", key), ("top",)):
        assert lab.json(*command)  # whole JSON, whose strings escape what is not printable
        assert deceit_in(lab.run(*command, "--json").output) == []


class Seen(HTMLParser):
    """The tags and attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs


@pytest.mark.parametrize("kind", KINDS)
def test_the_score_table_and_the_report_show_text(lab: Lab, kind: str) -> None:
    from ml_pipeline.reports.terminal import score_table_view

    words = WORDS[kind]
    name = words.replace("/", "-")[:60]
    scores = scores_of(
        eight("a", base_model=name, responses=dict.fromkeys("abcdefgh", words)),
        eight("b", "c", iteration=20, run=name, base_model=name, responses=dict.fromkeys("abcdefgh", words)),
        failures=[failed(name, 30, words)],
    )
    out = io.StringIO()
    Console(file=out, width=5000, force_terminal=True, color_system="truecolor").print(score_table_view(scores))
    assert deceit_in(out.getvalue(), styles=True) == []
    page = report_html(scores)
    seen = Seen()
    seen.feed(page)
    assert not seen.tags & {"script", "iframe", "object", "embed", "form", "base", "link"}
    assert not [name for name, value in seen.attributes if name.startswith("on")]
    places = [value or "" for name, value in seen.attributes if name in ("src", "href", "xlink:href", "action")]
    assert not [place for place in places if not place.startswith(("#", "data:image/"))]


@pytest.mark.parametrize("kind", KINDS)
def test_progress_and_errors_are_text(kind: str) -> None:
    words, lines = WORDS[kind], list[str]()
    log = LogProgress(lines.append)
    log.step(words, 1, 1)
    log.note(words.replace(FORGED, "x"))
    out = io.StringIO()
    with RichProgress(Console(file=out, width=100, force_terminal=True)) as progress:
        progress.step(words, 1, 2)
        progress.note(words.replace(FORGED, "x"))
    piped = io.StringIO()
    with RichProgress(Console(file=piped, width=5000)) as progress:
        progress.step(words, 1, 1)
        progress.note(words.replace(FORGED, "x"))
    shown = "".join(f"{line}\n" for line in lines) + piped.getvalue()
    assert deceit_in(shown) == []
    # A bar moves the cursor itself: what is left without its own sequences is text.
    assert deceit_in(re.sub(r"\x1b\[\??[0-9;]*[A-Za-z]", "", out.getvalue()).replace("\r", "")) == []
    for error in (MlPipelineError(words), SettingsError.from_problems("x", [words]), CheckpointError(f"no {words}")):
        assert [one for one in deceit_in(str(error)) if FORGED not in one] == []


def texts_of(value: object) -> list[str]:
    return [str(value.value)] if isinstance(value, dg.MarkdownMetadataValue) else []


@pytest.mark.parametrize("kind", KINDS)
def test_what_dagster_takes_for_markdown_holds_no_live_sign(kind: str) -> None:
    words = WORDS[kind]
    stalled = [StalledRun("s", words, 1, 0, 60.0)]
    unscored = [{"suite": words, "passed": None, "unscored_reason": words}] * 3
    values: list[object] = [markdown_list([words]), fact_value([{words: words}]), fact_value(words)]
    values += freshness_evaluation(stalled, FreshnessCheck()).metadata.values()
    values += unscored_check(ANSWERS_ARE_SCORED, "k", unscored, "passed", UnscoredCheck()).metadata.values()
    texts = [text for value in values for text in texts_of(value)]
    assert len(texts) >= 4
    for text in texts:
        cells = [cell for line in text.splitlines() for cell in re.split(r"(?<!\\)\|", line)]
        for cell in cells:
            if cell.strip(" -"):
                assert _LIVE_MARKDOWN.findall(cell) == [], cell


def test_the_observation_of_a_look_is_text(named: Lab) -> None:
    found = Catalogue(named.settings).look()
    (text,) = texts_of(_observation(found, 0).metadata["problems"])
    assert EVIL.replace(".", "\\.") in text
    assert _LIVE_MARKDOWN.findall(text) == []


def test_a_table_has_a_row_a_row_whatever_its_cells_hold() -> None:
    rows = [{"a": words, "b": 1} for words in WORDS.values()]
    lines = markdown_table(rows).splitlines()
    assert len(lines) == 2 + len(rows)
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 3 for line in lines)


@pytest.mark.parametrize("kind", KINDS)
def test_descriptions_of_checks_and_alerts_are_single_lines(kind: str) -> None:
    words = WORDS[kind]
    rows = [{"suite": "capability", "passed": None, "unscored_reason": words}] * 3
    verdict = unscored_check(ANSWERS_ARE_SCORED, "mac.x@1", rows, "passed", UnscoredCheck())
    stalled = freshness_evaluation([StalledRun("s", words, 1, 0, 60.0)], FreshnessCheck())
    for description in (verdict.description or "", stalled.description or ""):
        assert deceit_in(plain_words(description)) == []
        assert not re.search(r"(?<!\\)[\[\]<>!`|*]|http:|www\.", description)
        assert len(description.splitlines()) == 1
    one = FailedCheck(
        id="1", check="c", asset="a", partition="mac.x@1", severity="error", description=words, failed_at="2026-01-01"
    )
    told = message([one], LinksSettings(), {})
    for field in ("text", "content", "message"):
        text = told[field]
        assert len(text.splitlines()) == 2
        assert deceit_in(text.replace("\u200b", "")) == []
        assert f"http://{EVIL}" not in text
        assert not re.search(r"(?<!\w)@(here|channel|everyone|all)\b", told["text"])
    assert not re.search(r"[<>]", told["text"])
    assert not re.search(r"&(?!amp;|lt;|gt;)", told["text"])
    assert "](" not in told["text"]
    assert not re.search(r"(?<!\\)[\[\]<>`|*]", told["content"])
    assert told["failed_checks"][0]["description"] == words, "programs get it as it is"


@pytest.mark.parametrize("kind", KINDS)
def test_keys_hold_any_name(kind: str) -> None:
    key = escaped(WORDS[kind])
    assert re.fullmatch(r"[A-Za-z0-9._=+-]+", key)
    assert not key.startswith(".")
    assert ".." not in key

"""`config check`, and the warning of a token limit that cuts the base model's answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from ml_pipeline_tests.cli.lab import Lab, eight, words

WARNING = (
    "warning: base model tiny: the limit of 500 tokens cuts 3 of its 8 answers (38%) to suite capability, so that an "
    "adapter which only answers shorter looks better. Raise base_models.tiny.generation.capability.max_tokens in "
    "pipeline.yaml, then score again."
)
CUT = dict.fromkeys("abc", "length")


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    return Lab(tmp_path, monkeypatch)


def warnings(lab: Lab) -> str:
    done = lab.run("config", "check")
    assert done.exit_code == 0, done.output
    return words(done.stderr)


def test_a_base_that_is_cut_often_is_warned_of(lab: Lab) -> None:
    assert warnings(lab) == ""
    lab.put(eight("d", finish_reasons=CUT), eight("d", iteration=100))
    assert warnings(lab) == WARNING


def test_a_cut_checkpoint_and_a_base_that_is_cut_now_and_then_are_not(lab: Lab) -> None:
    lab.put(eight("d", finish_reasons={"a": "length"}), eight("d", iteration=100, finish_reasons=CUT))
    assert warnings(lab) == ""


@pytest.mark.parametrize("place", ["suites", "base"])
def test_once_the_limit_was_changed_what_it_cut_does_not_count(lab: Lab, place: str) -> None:
    lab.put(eight("d", finish_reasons=CUT))
    raised = {"capability": {"max_tokens": 700}}
    if place == "suites":
        lab.configure(suites={"generation": raised})
    else:
        lab.configure(base_models={"tiny": {"generation": raised}})
        assert "suite capability: max_tokens 700" in lab.shown("config", "check")
    assert warnings(lab) == ""


def test_the_share_is_that_of_the_check_for_cut_answers(lab: Lab) -> None:
    lab.put(eight("d", finish_reasons=CUT))
    lab.configure(checks={"truncation": {"share": 0.5}})
    assert warnings(lab) == ""


def test_a_suite_that_there_is_not_is_wrong_use(lab: Lab) -> None:
    lab.configure(base_models={"tiny": {"generation": {"capabilty": {"max_tokens": 7}}}})
    done = lab.run("config", "check")
    assert done.exit_code == 2
    assert "base_models.tiny.generation.capabilty: no suite called" in done.stderr

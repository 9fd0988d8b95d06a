"""Who judges: what pipeline.yaml may name, and backends of the judges' own, with the real sample model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ml_pipeline.backends.completion_cache import CachedBackend
from ml_pipeline.errors import MlPipelineError, SettingsError
from ml_pipeline.evaluation.judges import Judges, panel_name
from ml_pipeline.evaluation.stages import needs_model
from ml_pipeline.judge_settings import JudgeSettings
from ml_pipeline.settings import Settings
from ml_pipeline.settings_file import load_settings
from ml_pipeline_tests.evaluation.scripted import GOOD, ScriptedBackend
from ml_pipeline_tests.project import make_project

EMBEDDED = ScriptedBackend(lambda request: GOOD, "tiny")
SMALL = {"type": "llama_cpp", "sequences": 2, "context_tokens": 512, "threads": 1}


def settings(judge: dict[str, Any], **sections: Any) -> Settings:
    return Settings.model_validate(
        {
            "sources": {"mac": {"type": "local", "path": "runs"}},
            "base_models": {"tiny": {"gguf": "nowhere.gguf"}, "big": {"gguf": "nowhere.gguf"}},
            "backends": {"other": SMALL},
            "judge": judge,
        }
        | sections
    )


@pytest.mark.parametrize(
    ("judge", "members"),
    [
        ({}, ()),
        ({"backend": "embedded"}, ("embedded",)),
        ({"backend": "none"}, ()),
        ({"backend": "none", "panel": ["big"]}, ()),
        ({"backend": "big"}, ("big",)),
        ({"backend": "other", "base_model": "big"}, ("other",)),
        ({"panel": ["embedded", "big", "big"]}, ("embedded", "big")),
    ],
)
def test_who_judges(judge: dict[str, Any], members: tuple[str, ...]) -> None:
    assert settings(judge).judge.members == members


@pytest.mark.parametrize(
    ("judge", "problem"),
    [
        ({"backend": "bigg"}, "judge.backend: no backend and no base model called 'bigg'; did you mean 'big'?"),
        ({"panel": ["tiny", "ohter"]}, "judge.panel[1]: no backend and no base model called 'ohter'; did you mean"),
        ({"panel": ["none"]}, "judge.panel[0]: no backend and no base model called 'none'"),
        ({"backend": "other"}, "judge.base_model: needed for judge.backend: the name under base_models"),
        (
            {"backend": "other", "base_model": "bog"},
            "judge.base_model: no base model called 'bog'; did you mean 'big'?",
        ),
        ({"repeats": 0}, "judge.repeats"),
        ({"repeats": 2, "repeat_temperature": 0}, "judge.repeat_temperature"),
        ({"reasks": 99}, "judge.reasks"),
    ],
)
def test_a_judge_that_cannot_be_is_named_with_its_place(judge: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=r"[\s\S]*") as caught:
        settings(judge)
    assert problem in str(caught.value)


def test_a_name_that_means_two_things_is_refused() -> None:
    with pytest.raises(ValueError, match="'big' is both a backend and a base model; rename one"):
        settings({"backend": "big"}, backends={"big": SMALL})


def test_only_an_embedded_judge_needs_the_checkpoints_base_model() -> None:
    other, embedded = JudgeSettings(backend="big"), JudgeSettings(panel=("big", "embedded"))
    assert [needs_model(["judgements"], judge) for judge in (other, embedded)] == [False, True]
    assert needs_model(["responses"], other)
    assert not needs_model(["probe_results"], embedded)


def test_a_judge_whose_model_is_missing_is_told_and_holds_nobody_up(tmp_path: Path) -> None:
    with Judges(settings({"panel": ["embedded", "big"]}), tmp_path / "c.sqlite", print) as judges:
        first, second = judges.present(EMBEDDED)
        assert judges.needs_embedded
        assert (first.name, first.backend) == ("tiny", EMBEDDED)
        assert second.name == "big"
        assert isinstance(second.backend, SettingsError)
        assert "base_models.big.gguf: there is no file" in str(second.backend)
        assert judges.present(EMBEDDED)[1].backend is second.backend


def test_an_embedded_judge_without_its_model_is_an_error_and_no_crash(tmp_path: Path) -> None:
    with Judges(settings({"backend": "embedded"}), tmp_path / "c.sqlite", print) as judges:
        (judge,) = judges.present(None)
        assert isinstance(judge.backend, MlPipelineError)


@pytest.mark.slow
def test_judges_on_backends_of_their_own_are_opened_once_and_closed(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    project.configure(
        backends={"second": SMALL},
        judge={"panel": ["smollm2-135m", "second"], "base_model": "smollm2-135m"},
    )

    loaded = load_settings(project.root / "pipeline.yaml", environ={})
    with Judges(loaded, tmp_path / "c.sqlite", print) as judges:
        first = judges.present(None)
        assert judges.present(None) == first
        assert panel_name(first) == "smollm2-135m Q4_1 + smollm2-135m Q4_1, second"
        backends = [judge.backend for judge in first]
    for backend in backends:
        assert isinstance(backend, CachedBackend)
        with pytest.raises(MlPipelineError, match="closed"):
            list(backend.complete([]))

"""What the shells complete; bash itself is asked, with a terminal before it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from ml_pipeline_tests.cli.lab import Lab, eight
from ml_pipeline_tests.project import REPOSITORY

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
PROGRAM = "ml-pipeline"


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    lab = Lab(tmp_path, monkeypatch)
    lab.put(eight("a"), eight("a", iteration=100), eight("b", iteration=120), eight("c", run="other", iteration=5))
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / PROGRAM
    program.write_text(f"#!{sys.executable}\nfrom ml_pipeline.cli.program import run\nrun()\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    return lab


def completed(lab: Lab, line: str) -> list[str]:
    """What bash is told to put in place of the word at the end of the line, as its own word breaks have it."""
    word = line.rsplit(" ", 1)[-1]
    own = word
    for mark in "@=:":
        own = own.rsplit(mark, 1)[-1]
    script = f"""
        eval "$(_ML_PIPELINE_COMPLETE=bash_source {PROGRAM})"
        compopt() {{ :; }}
        COMP_LINE='{line}' COMP_POINT={len(line)}
        _ml_pipeline_completion {PROGRAM} '{own}' ''
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "--norc", "-c", script], cwd=lab.root, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == ""
    return [reply for reply in done.stdout.splitlines() if reply]


def test_keys_runs_and_suites(lab: Lab) -> None:
    assert completed(lab, f"{PROGRAM} show mac") == ["mac.lek+a@100", "mac.lek+a@120", "mac.other@5"]
    # bash begins a new word at '@': only what follows it is put in its place.
    assert completed(lab, f"{PROGRAM} show mac.lek+a@1") == ["100", "120"]
    assert completed(lab, f"{PROGRAM} compare mac.other@5 ba") == ["base.tiny@0"]
    assert completed(lab, f"{PROGRAM} top --run ") == ["lek/a", "other"]
    assert completed(lab, f"{PROGRAM} top --suite cap") == ["capability"]
    assert completed(lab, f"{PROGRAM} sta") == ["status"]
    assert completed(lab, f"{PROGRAM} --config {lab.root}/pipeline.yaml show oth") == ["mac.other@5"]


def test_trouble_is_silent(lab: Lab) -> None:
    with duckdb.connect(str(lab.settings.duckdb_path)):
        assert completed(lab, f"{PROGRAM} show mac") == []
    (lab.root / "pipeline.yaml").write_text("no: settings")
    assert completed(lab, f"{PROGRAM} show mac") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_gets_its_script(lab: Lab, shell: str) -> None:
    done = subprocess.run(
        [PROGRAM],
        env={**os.environ, "_ML_PIPELINE_COMPLETE": f"{shell}_source"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "_ML_PIPELINE_COMPLETE=" in done.stdout

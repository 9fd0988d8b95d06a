"""What `ml-pipeline score` chooses after a crash; that it is carried out is in test_killed_runs.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from ml_pipeline.automation.local_runs import project_instance
from ml_pipeline.checkpoints.catalogue import Catalogue
from ml_pipeline.checkpoints.checkpoint import Checkpoint
from ml_pipeline_tests.cli.lab import Lab
from ml_pipeline_tests.cli.test_status import add

CRASHED = "mac.lek@2"


def dry_run(*options: str) -> list[str]:
    """What would be scored, and the counts before it."""
    command = [sys.executable, "-c", "from ml_pipeline.cli.program import run; run()", "score", "--dry-run", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout.splitlines()[1:]


@dg.job
def empty() -> None: ...


def test_a_crash_leaves_out_one_version_of_one_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab(tmp_path, monkeypatch)
    lab.configure(sources={"mac": {"type": "local", "path": "runs"}})
    folder = lab.root / "runs" / "adapters-lek"
    folder.parent.mkdir(exist_ok=True)
    for iteration in (1, 2, 3):
        add(folder, iteration)
    monkeypatch.chdir(lab.root)
    (checkpoint,) = Catalogue(lab.settings).find([CRASHED]).values()
    assert isinstance(checkpoint, Checkpoint)
    locks = lab.settings.run_locks_path
    locks.mkdir(parents=True)
    with project_instance(lab.settings) as instance:
        run_id = instance.create_run_for_job(empty).run_id
        # What the process leaves when a native library crashes in it; see test_native_crashes.py.
        (locks / f"{run_id}.fault").write_text("Fatal Python error: Segmentation fault\n")
        (locks / f"{run_id}.checkpoint").write_text(json.dumps([CRASHED, checkpoint.version]))
    bases = [f"  {c.key}  (new)" for c in Catalogue(lab.settings).look().checkpoints if c.is_base]
    count = len(bases) + 3
    others = [*bases, "  mac.lek@1  (new)", "  mac.lek@3  (new)"]
    left_out = f"  {CRASHED}  (left out after a crash)"
    counts = f"{count} checkpoints, {count - 1} to score, 1 left out after a crash"
    assert sorted(dry_run()) == sorted([counts, *others, left_out])
    limited = dry_run("--limit", "1")
    assert limited[0] == f"{count} checkpoints, 1 to score, 1 left out after a crash"
    assert (len(limited), limited[-1]) == (3, left_out)
    every = sorted([f"{count} checkpoints, {count} to score", *others, f"  {CRASHED}  (new)"])
    assert sorted(dry_run("--force")) == every
    assert f"  {CRASHED}  (new)" in dry_run("--filter", CRASHED)
    os.utime(folder / "0000002_adapters.safetensors", (1e9, 1e9))
    assert sorted(dry_run()) == every

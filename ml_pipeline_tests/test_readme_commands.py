"""Every command of the README is run as it stands there, on real checkpoints and real servers, and does its work."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from ml_pipeline_tests.backends.tiny_mlx import write_checkpoint, write_model
from ml_pipeline_tests.history.original import buffered, database, lines, point, table
from ml_pipeline_tests.project import Project, make_project, sample_iterations
from ml_pipeline_tests.sshd import running_sshd
from ml_pipeline_tests.test_readme import README, ROOT
from ml_pipeline_tests.test_readme_texts import settings_blocks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
RUN = "reasoning"
FIRST, LAST = sample_iterations(RUN)[0], sample_iterations(RUN)[-1]
WORDS = {
    "PATH": [f"runs/adapters-smollm2-135m-{RUN}/{FIRST:07d}_adapters.safetensors"],
    "PATH...": ["lem.duckdb"],
    "NAME": ["smollm2-135m"],
    "FOLDER": ["tables"],
    "OLD": ["old.jsonl"],
    "NEW": ["new.jsonl"],
    "FILE": ["pipeline.yaml"],
    "...": ["status"],
    "mac.1b-*": ["mac.*"],
    "CHECKPOINT": [f"{RUN}@{FIRST}"],
    "KEY": [f"*{RUN}*"],
    "A": [f"{RUN}@{FIRST}"],
    "B": [f"{RUN}@{LAST}"],
    "tuned@800": [f"{RUN}@{LAST}"],
    "arith": ["sum"],
    "watch": ["watch", "--once"],
    # It goes on until it is told to end; test_dev.py starts it.
    "dev": ["dev", "--help"],
}
"""What stands in the README for something of the user's, and what it is here."""
OWN_MAC = README.partition("## From nothing to your own Mac")[2].partition("\n##")[0]


def commands(text: str) -> list[list[str]]:
    """The arguments of every `ml-pipeline` in code, in their order, none twice."""
    code = re.findall(r"`([^`\n]+)`", text) + re.findall(r"^ {4,}(\S.*)$", text, re.MULTILINE)
    found = [re.fullmatch(r"(?:\.venv/bin/)?ml-pipeline (.+)", line.strip()) for line in code]
    return [shlex.split(line) for line in dict.fromkeys(match[1] for match in found if match)]


@pytest.fixture
def project(tmp_path: Path, victoria_metrics: str) -> Project:
    project = make_project(tmp_path / "project")
    for iteration in (FIRST, LAST):
        project.add(RUN, iteration)
    project.configure(stores={"influx": {"url": f"{victoria_metrics}/influx"}})
    answers = project.root / "data" / "responses"
    answers.mkdir(parents=True)
    for name, answer in (("old", "Paris."), ("new", "It is Paris.")):
        lines(answers / f"{name}.jsonl", [{"id": str(n), "response": f"{answer} {n}"} for n in range(9)])
    root = project.root
    database(root / "lem.duckdb", {100: [True, False]})
    lines(root / "influx_buffer.jsonl", [buffered(200)])
    table(root / "capability_score.csv", [point(300, 0, category="overall", accuracy=50, correct=1, total=2)])
    scored = {"label": "G1-lek @0000400", "accuracy": 50, "correct": 1, "total": 2, "by_category": {}}
    judged = {"label": "G1-lek @0000400", "aggregates": {}, "probes": {"loss": {"scores": {"truth_telling": 5}}}}
    lines(root / "capability.jsonl", [scored])
    lines(root / "content.jsonl", [judged])
    return project


def test_every_command_of_the_readme_works(project: Project) -> None:
    told = [*commands("`ml-pipeline score` `ml-pipeline responses score`"), *commands(README)]
    assert len(told) > 20
    failed = []
    for arguments in told:
        given = [word for argument in arguments for word in WORDS.get(argument, [argument])]
        done = project.run(*given)
        if done.returncode != 0 or "Traceback" in done.stderr:
            failed.append(
                f"ml-pipeline {shlex.join(given)}: {done.returncode}\n{done.stdout[-800:]}{done.stderr[-800:]}"
            )
    assert not failed, "\n\n".join(failed)


def test_every_make_target_of_the_readme_is_run_by_continuous_integration() -> None:
    """But those that never end or measure, and `attack`, whose tests are in `test` and `slow`."""
    told = set(re.findall(r"`make ([a-z]+)`", README)) | set(re.findall(r"^ {4}make ([a-z]+)$", README, re.MULTILINE))
    run = set(re.findall(r"^make ([a-z]+)", (ROOT / ".ci" / "run").read_text(), re.MULTILINE))
    assert told - run == {"attack", "dev", "bench"}
    assert {"demo", "test"} <= told & run


def test_ones_own_mac_in_ten_minutes(tmp_path: Path) -> None:
    """The settings and commands of that section, with a real sshd and a real mlx_lm.server for the Mac's."""
    project = make_project(tmp_path / "project")
    model = write_model(tmp_path / "mac" / "model")
    for iteration, strength in ((10, 0.05), (20, 0.1)):
        folder = project.runs / "adapters-1b-notes"
        write_checkpoint(model, folder, iteration, strength=strength)
    (told,) = [block for block in settings_blocks() if "families" in block and "mac" in block.get("sources", {})]
    told["backend"]["python"] = [sys.executable]
    told["base_models"]["gemma-3-1b"]["mlx"] = str(tmp_path / "mac" / "model")
    with running_sshd(tmp_path / "sshd") as sshd:
        here = sshd.settings(project.runs).model_dump(mode="json", exclude_defaults=True)
        told["sources"]["mac"] |= here
        project.configure(**told)
        outputs = []
        for arguments in commands(OWN_MAC):
            done = project.run(*arguments)
            assert done.returncode == 0, done.stdout + done.stderr
            outputs.append(done.stdout)
    check, discovered, scored = outputs
    assert "base model gemma-3-1b: " in check
    assert "mac.1b-notes@10" in discovered
    assert "1b-notes" in scored
    assert (project.root / "data" / "report.html").is_file()

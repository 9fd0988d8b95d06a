"""What the README shows is what the program takes and says: settings, and the words of error messages."""

from __future__ import annotations

import os
import plistlib
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

from ml_pipeline.settings import Settings
from ml_pipeline_tests.test_readme import README, ROOT

SHIPPED = yaml.safe_load((ROOT / "pipeline.yaml").read_text(encoding="utf-8"))


def settings_blocks() -> list[dict[str, Any]]:
    """The README's indented blocks that hold settings."""
    blocks = re.findall(r"(?:^ {4,}\S.*\n)+", README, re.MULTILINE)
    found = []
    for block in blocks:
        text = textwrap.dedent(block)
        if re.match(r"[a-z_]+:\s", text) and text.split(":")[0] in Settings.model_fields:
            found.append(yaml.safe_load(text))
    return found


def shown_block(first_line: str) -> str:
    """The README's indented block, with its empty lines, that begins so."""
    (found,) = re.findall(rf"^ {{4}}{re.escape(first_line)}\n(?:(?: {{4}}.*)?\n)*", README, re.MULTILINE)
    return textwrap.dedent(found)


def messages() -> list[str]:
    """The messages that the section on troubleshooting explains."""
    section = README.partition("## Troubleshooting")[2].partition("\n## ")[0]
    return re.findall(r"^\| (?!message|---)([^|]+) \|", section, re.MULTILINE)


@pytest.mark.parametrize("block", settings_blocks(), ids=lambda block: "+".join(block))
def test_settings_shown_are_valid(block: dict[str, Any]) -> None:
    models = block.get("base_models", {})
    if "families" not in block:  # more models beside those that are there
        models = SHIPPED["base_models"] | models
    Settings.model_validate({**SHIPPED, **block, "base_models": models})


def test_there_are_such_blocks() -> None:
    assert len(settings_blocks()) >= 5


@pytest.mark.parametrize("message", messages())
def test_a_message_that_is_explained_is_one_of_the_program(message: str) -> None:
    # Sources break long messages into several literals.
    joint = re.compile(r'"\s*\n\s*f?"')
    sources = "".join(
        joint.sub("", path.read_text(encoding="utf-8")) for path in Path(ROOT, "ml_pipeline").rglob("*.py")
    )
    assert message in sources


def test_messages_are_explained() -> None:
    assert len(messages()) >= 10


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
def test_the_systemd_unit_is_valid(tmp_path: Path) -> None:
    unit = shown_block("[Unit]")
    (program,) = re.findall(r"^ExecStart=%h/(\S+) dev$", unit, re.MULTILINE)
    (tmp_path / program).parent.mkdir(parents=True)
    (tmp_path / program).symlink_to(Path(sys.executable).with_name("ml-pipeline"))
    path = tmp_path / "ml-pipeline.service"
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    command = ["systemd-analyze", "--user", "verify", str(path)]

    def verified(text: str) -> str:
        path.write_text(text)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return "\n".join(line for line in done.stderr.splitlines() if "ml-pipeline" in line)

    assert verified(unit) == ""
    assert "KillMod" in verified(unit.replace("KillMode", "KillMod"))
    assert "not executable" in verified(unit.replace(program, f"{program}x"))


def test_the_launchd_job_is_valid() -> None:
    job = plistlib.loads(shown_block('<?xml version="1.0" encoding="UTF-8"?>').encode())
    program, *arguments = job["ProgramArguments"]
    assert program == f"{job['WorkingDirectory']}/.venv/bin/ml-pipeline"
    assert arguments == ["dev"]
    assert job["KeepAlive"] == {"SuccessfulExit": False}
    assert job["RunAtLoad"] is True
    assert job["ExitTimeOut"] > 10, "the time that all children get"


def test_pip_gets_the_options_shown_for_installing(tmp_path: Path) -> None:
    lines = re.findall(r"^ {4}(make .*PIP_FLAGS=.*)$", README, re.MULTILINE)
    assert lines
    for line in lines:
        name, flags = shlex.split(line)[-1].split("=", 1)
        assert name == "PIP_FLAGS"
        command = [*shlex.split(line), "--dry-run", "--always-make", f"VENV={tmp_path / 'none'}"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        (pip,) = [words for words in done.stdout.replace("\\\n", " ").splitlines() if " pip install " in words]
        assert f" {flags} --constraint constraints.txt --editable " in pip

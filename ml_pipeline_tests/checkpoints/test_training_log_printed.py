"""What the installed mlx-lm itself prints, into a file and in a terminal, is what the parser reads."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from contextlib import suppress

import pytest

from ml_pipeline.checkpoints.training_log import LossRecord, TrainingLogParser

PRINTED_BY_MLX_LM = """
from mlx_lm.cli_ui import TrainUI
ui = TrainUI(1200)
with ui:
    with ui.val_task(2) as advance:
        advance(); advance()
    ui.report_val(1, 2.5704, 20.183)
    reports = ((10, 2.4567, 1234.5, 678), (20, 2.5, 6.4, 1200), (30, float("nan"), 7.0, 99999))
    for iteration, loss, speed, tokens in reports:
        for _ in range(10):
            ui.advance()
        ui.report_train(iteration, loss, speed, tokens)
    ui.report_val(1200, float("inf"), 0.5)
"""


@pytest.mark.parametrize("terminal", [False, True], ids=["into a file", "in a terminal"])
def test_what_mlx_lm_itself_prints_is_read(terminal: bool) -> None:
    pytest.importorskip("mlx_lm.cli_ui")
    environment = {**os.environ, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8", "COLUMNS": "120"}
    command = [sys.executable, "-c", PRINTED_BY_MLX_LM]
    if terminal:
        reading, writing = pty.openpty()
        with subprocess.Popen(command, env=environment, stdout=writing, stderr=subprocess.STDOUT):
            os.close(writing)
            printed = b""
            with suppress(OSError):  # how Linux says that the other end is closed
                while chunk := os.read(reading, 65536):
                    printed += chunk
        os.close(reading)
        assert b"\x1b[" in printed
    else:
        printed = subprocess.run(command, env=environment, capture_output=True, check=True).stdout
    assert TrainingLogParser().feed(printed) == [
        LossRecord(1, "val", 2.570),
        LossRecord(10, "train", 2.457, tokens_per_s=1234, trained_tokens=700),
        LossRecord(20, "train", 2.500, tokens_per_s=6, trained_tokens=1200),
        LossRecord(30, "train", None, "diverged", tokens_per_s=7, trained_tokens=100_000),
        LossRecord(1200, "val", None, "diverged"),
    ]

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from ml_pipeline.stores.influx_buffer import InfluxBuffer
from ml_pipeline_tests.cli.lab import Lab, fits, words


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    lab = Lab(tmp_path, monkeypatch)
    lab.configure(
        sources={"mac": {"type": "local", "path": "runs"}, "gone": {"type": "local", "path": "nowhere"}},
        stores={"influx": {"url": "http://127.0.0.1:9"}},
    )
    for iteration in range(1, 31):
        add(lab.root / "runs" / "adapters-lek-with-a-very-long-name-that-no-terminal-likes", iteration)
    return lab


def add(folder: Path, iteration: int) -> None:
    folder.mkdir(exist_ok=True)
    save_file({"x.lora_a": np.zeros((2, 2), np.float32)}, folder / f"{iteration:07}_adapters.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"lora_parameters": {"rank": 2, "scale": 1.0}}))


def test_sources_checkpoints_and_the_buffer_in_80_columns(lab: Lab) -> None:
    buffer = InfluxBuffer(lab.settings.influx_buffer_path)
    buffer.add("mac.lek@1", "m", ["m a=1 1", "m a=2 2"])
    (buffer.folder / "rejected").mkdir()
    (buffer.folder / "rejected" / "mac.lek@2~m.lp").write_text("no line\n")
    text = lab.shown("status")
    flat = words(text)
    assert fits(text)
    assert "mac reachable 30" in flat
    assert "gone unreachable 0" in flat
    assert "source gone: " in flat
    assert "30 checkpoints: 30 new" in flat
    assert "10 more; --all lists them" in flat
    assert "2 points wait in 1 batches, for http://127.0.0.1:9." in flat
    assert "1 points were rejected by the server" in flat
    assert len(lab.shown("status", "--all").splitlines()) > len(text.splitlines())


def test_json(lab: Lab) -> None:
    told = lab.json("status")
    mac, gone = (next(s for s in told["sources"] if s["name"] == name) for name in ("mac", "gone"))
    assert (mac["reachable"], mac["reason"], mac["checkpoints"]) == (True, None, 30)
    assert (gone["reachable"], "nowhere" in gone["reason"]) == (False, True)
    assert (told["counts"]["new"], told["counts"]["failed"], len(told["checkpoints"])) == (30, 0, 30)
    assert told["checkpoints"][0]["state"] == "new"
    assert told["influx"] == {
        "url": "http://127.0.0.1:9",
        "waiting": {"batches": 0, "points": 0, "size_bytes": 0},
        "rejected": {"batches": 0, "points": 0, "size_bytes": 0},
    }


def test_names_of_another_machine_move_no_cursor(lab: Lab) -> None:
    add(lab.root / "runs" / "adapters-lek\x1b[2J[red]", 1)
    for command in (("discover",), ("status", "--all")):
        text = lab.shown(*command, width=200)
        assert fits(text, 200)
        assert "mac.lek=1B=5B2J=5Bred=5D@1 " in text
        assert " [2J[red]" in text

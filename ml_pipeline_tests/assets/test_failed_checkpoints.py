"""A run of the scoring op stores why a checkpoint failed, and forgets it once the checkpoint was made."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from ml_pipeline.assets.checkpoint_assets import build_checkpoint_assets
from ml_pipeline.automation.partitions import CHECKPOINT_PARTITIONS, range_tags
from ml_pipeline.errors import StoreLockedError
from ml_pipeline.reports.failures import current_failures
from ml_pipeline.reports.scores import load_scores
from ml_pipeline.resources import build_resources
from ml_pipeline.settings import Settings
from ml_pipeline.settings_file import load_settings
from ml_pipeline.stores.duckdb import DuckDBStore
from ml_pipeline.stores.score_store import ScoreStore

GOOD, BAD, GONE = "mac.lek@100", "mac.lek@200", "mac.lek@300"


class Lab:
    """A project whose checkpoints are fetched and validated, which needs no model."""

    def __init__(self, root: Path) -> None:
        self.config = root / "pipeline.yaml"
        self.folder = root / "runs" / "adapters-lek"
        self.folder.mkdir(parents=True)
        config = {
            "sources": {"mac": {"type": "local", "path": "runs"}},
            "backend": {"type": "mlx"},
            "base_models": {"tiny": {"mlx": "tiny"}},
            "families": [{"prefix": "lek", "model": "tiny", "short": "T"}],
        }
        self.config.write_text(yaml.safe_dump(config))
        parameters = {"rank": 2, "scale": 1.0, "dropout": 0.0}
        (self.folder / "adapter_config.json").write_text(json.dumps({"lora_parameters": parameters, "num_layers": 1}))

    @property
    def settings(self) -> Settings:
        return load_settings(self.config, environ={})

    def add(self, iteration: int, whole: bool = True) -> None:
        name = "model.layers.0.self_attn.q_proj"
        tensors = {f"{name}.lora_a": np.ones((4, 2), np.float32), f"{name}.lora_b": np.ones((2, 4), np.float32)}
        file = self.folder / f"{iteration:07}_adapters.safetensors"
        save_file(tensors, file)
        if not whole:
            file.write_bytes(file.read_bytes()[:-8])
        os.utime(file, ns=(iteration, iteration + whole))

    def run(self, *keys: str) -> bool:
        with dg.DagsterInstance.ephemeral() as instance:
            instance.add_dynamic_partitions(str(CHECKPOINT_PARTITIONS.name), list(keys))
            done = dg.materialize(
                [build_checkpoint_assets(16)],
                selection=["adapter"],
                instance=instance,
                resources=build_resources(self.config, self.settings),
                tags=range_tags(list(keys)),
                raise_on_error=False,
            )
        return done.success

    def failures(self) -> dict[str, tuple[str, str, str]]:
        store = DuckDBStore(self.settings.duckdb_path)
        return {one.partition_key: (one.label, one.stage, one.words) for one in current_failures(load_scores(store))}


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    lab = Lab(tmp_path)
    lab.add(100)
    lab.add(200, whole=False)
    return lab


def test_failures_are_stored_with_their_reason_and_forgotten_when_mended(lab: Lab) -> None:
    assert not lab.run(GOOD, BAD, GONE)
    found = lab.failures()
    assert found.keys() == {BAD, GONE}
    assert found[BAD][:2] == ("T @0000200", "adapter")
    assert "safetensors" in found[BAD][2]
    assert found[GONE][:2] == ("", "adapter")
    lab.add(200)
    assert lab.run(BAD)
    assert lab.failures().keys() == {GONE}
    lab.add(200, whole=False)
    assert not lab.run(BAD)
    assert lab.failures().keys() == {BAD, GONE}


def test_a_store_that_cannot_take_the_failure_costs_no_checkpoint(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(*args: Any) -> None:
        raise StoreLockedError("held by another process")

    monkeypatch.setattr(ScoreStore, "write_partition", locked)
    assert lab.run(GOOD)
    assert not lab.run(GOOD, BAD)

"""Preparing: the files of the checkpoint at work stay, the next one comes meanwhile, lost ones come from the cache."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from ml_pipeline.adapters import read_adapter, write_gguf_lora, write_peft
from ml_pipeline.checkpoints.catalogue import Catalogue
from ml_pipeline.checkpoints.checkpoint import Checkpoint
from ml_pipeline.checkpoints.fetch import fetch_index
from ml_pipeline.errors import CheckpointError
from ml_pipeline.evaluation.prepare import Preparer
from ml_pipeline.settings import Family, Settings
from ml_pipeline_tests.adapters.tiny_models import TinyModel, save_adapter, tiny_llama


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return tiny_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture
def settings(tmp_path: Path, base: TinyModel) -> Settings:
    for iteration in (100, 200, 300):
        saved = save_adapter(base, tmp_path / f"adapter{iteration}", strength=iteration / 1000)
        run = tmp_path / "runs" / "adapters-tiny-a"
        run.mkdir(parents=True, exist_ok=True)
        shutil.copy(saved.weights, run / f"{iteration:07d}_adapters.safetensors")
        shutil.copy(saved.config, run / "adapter_config.json")
    return settings_of(tmp_path, base)


def settings_of(root: Path, base: TinyModel, **limits: int) -> Settings:
    return Settings.model_validate(
        {
            "root": root,
            "sources": {"mac": {"type": "local", "path": "runs"}},
            "base_models": {"tiny": {"gguf": base.gguf_path}},
            "families": [{"prefix": "tiny-", "model": "tiny", "short": "T"}],
            "limits": limits,
            "discovery": {"settle_s": 0},
        }
    )


class Silence:
    """Hears nothing."""

    def step(self, title: str, done: int, total: int) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""


def adapters_in(catalogue: Catalogue) -> list[Checkpoint]:
    return [checkpoint for checkpoint in catalogue.look().checkpoints if not checkpoint.is_base]


def test_the_files_at_work_stay_even_when_nothing_fits(settings: Settings, tmp_path: Path, base: TinyModel) -> None:
    catalogue = Catalogue(settings)
    checkpoints = adapters_in(catalogue)
    with Preparer(settings_of(tmp_path, base, cache_bytes=1), catalogue, Silence(), checkpoints) as preparer:
        before: list[Path] = []
        for checkpoint in checkpoints:
            adapter = preparer.adapter(checkpoint)
            converted = preparer.converted_adapter(adapter, base.gguf_path)
            assert adapter is not None
            assert converted is not None
            assert all(path.exists() for path in (adapter.path, adapter.config_path, converted.path))
            assert before == [] or not before[-1].exists(), "the one before made room"
            before.append(converted.path)


def test_a_bare_base_model_needs_no_files_and_is_not_fetched_ahead(settings: Settings, base: TinyModel) -> None:
    catalogue = Catalogue(settings)
    everything = catalogue.look().checkpoints
    assert everything[0].is_base
    with Preparer(settings, catalogue, Silence(), everything) as preparer:
        assert preparer.adapter(everything[0]) is None
        assert preparer.converted_adapter(None, base.gguf_path) is None
        assert preparer.adapter(everything[1]) is not None


def test_the_next_one_comes_while_this_one_is_worked_on(settings: Settings, tmp_path: Path) -> None:
    catalogue = Catalogue(settings)
    first, second, third = checkpoints = adapters_in(catalogue)
    index = fetch_index(settings.cache_path)
    with Preparer(settings, catalogue, Silence(), checkpoints) as preparer:
        preparer.adapter(first)
        for thread in threading.enumerate():
            if thread.name == f"fetch {second.key}":
                thread.join(20)
        assert index.find(second) is not None
        assert index.find(third) is None, "one ahead, no more"


def test_no_thread_is_left_behind(settings: Settings) -> None:
    catalogue = Catalogue(settings)
    checkpoints = adapters_in(catalogue)
    with Preparer(settings, catalogue, Silence(), checkpoints) as preparer:
        preparer.adapter(checkpoints[0])
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fetch ")]


def test_what_was_fetched_can_be_scored_again_when_its_source_has_lost_it(
    settings: Settings, tmp_path: Path, base: TinyModel
) -> None:
    catalogue = Catalogue(settings)
    first, second, _ = checkpoints = adapters_in(catalogue)
    with Preparer(settings, catalogue, Silence(), checkpoints[:1]) as preparer:
        adapter = preparer.adapter(first)
    shutil.rmtree(tmp_path / "runs")
    found = catalogue.find([first.key, second.key])
    assert found[first.key] == first
    assert isinstance(found[second.key], CheckpointError)
    with Preparer(settings, catalogue, Silence(), [first]) as preparer:
        assert preparer.adapter(first) == adapter
    changed = settings.model_copy(update={"families": (Family(prefix="tiny", model="tiny", short="New"),)})
    (again,) = Catalogue(changed).find([first.key]).values()
    assert isinstance(again, Checkpoint)
    assert again.label == "New-a @0000100", "families as they are now"


def test_a_checkpoint_that_is_being_written_anew_is_not_replaced_by_its_old_content(
    settings: Settings, tmp_path: Path
) -> None:
    catalogue = Catalogue(settings)
    first = adapters_in(catalogue)[0]
    with Preparer(settings, catalogue, Silence(), [first]) as preparer:
        preparer.adapter(first)
    (tmp_path / "runs" / first.file).write_bytes(b"half")
    waiting = settings.model_copy(update={"discovery": settings.discovery.model_copy(update={"settle_s": 3600.0})})
    (found,) = Catalogue(waiting).find([first.key]).values()
    assert isinstance(found, CheckpointError)


def test_a_checkpoint_of_another_trainer_becomes_the_same_gguf(tmp_path: Path, base: TinyModel) -> None:
    """One adapter as mlx-lm and as PEFT save it, in a run folder of another name: found, fetched, read, converted."""
    saved = save_adapter(base, tmp_path / "saved", rank=3, scale=0.77)
    original = read_adapter(saved.weights, saved.config)
    write_peft(original, tmp_path / "outputs" / "tiny-sft" / "checkpoint-500")
    expected = write_gguf_lora(original, base.gguf_path, tmp_path / "expected.gguf")
    settings = settings_of(tmp_path, base)
    source = {"type": "local", "path": "outputs", "run_prefix": ""}
    settings = Settings.model_validate(settings.model_dump() | {"root": tmp_path, "sources": {"hf": source}})
    catalogue = Catalogue(settings)
    (checkpoint,) = adapters_in(catalogue)
    assert (checkpoint.key, checkpoint.label) == ("hf.tiny-sft@500", "T-sft @500")
    with Preparer(settings, catalogue, Silence()) as preparer:
        adapter = preparer.adapter(checkpoint)
        converted = preparer.converted_adapter(adapter, base.gguf_path)
        assert adapter is not None
        assert converted is not None
        assert (adapter.format, adapter.sha256 == original.sha256) == ("peft", False)
        assert converted.path.read_bytes() == expected.read_bytes()

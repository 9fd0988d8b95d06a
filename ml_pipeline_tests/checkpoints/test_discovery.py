"""Discovery over real folders: what is found, what is left for later, and what hostile names do."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest

from ml_pipeline.checkpoints.discovery import Discovery, Memory, discover
from ml_pipeline.checkpoints.source import Entry, LocalFolder
from ml_pipeline.settings import Family
from ml_pipeline_tests.checkpoints.files import SECOND_NS, write_checkpoint

NOW = 2_000_000_000 * SECOND_NS
FAMILIES = (
    Family(prefix="15k/gemma-3-1b", model="gemma-3-1b", short="G1"),
    Family(prefix="1b", model="gemma-3-1b", short="G1"),
)


def look(root: Path, pattern: str = "*") -> Discovery:
    return discover(LocalFolder("mac", root), FAMILIES, now_ns=NOW, settle_s=60, pattern=pattern)


def keys(found: Discovery) -> list[str]:
    return [checkpoint.key for checkpoint in found.checkpoints]


def test_runs_and_nested_base_model_folders_are_found_in_order_of_iteration(tmp_path: Path) -> None:
    for name in ("0000200_adapters.safetensors", "0000100_adapters.safetensors", "adapters.safetensors"):
        write_checkpoint(tmp_path / "adapters-1b-lek", name, mtime_ns=NOW)
    write_checkpoint(tmp_path / "adapters-15k" / "gemma-3-1b", "0000050_adapters.safetensors", mtime_ns=NOW)
    write_checkpoint(tmp_path / "other", "0000050_adapters.safetensors", mtime_ns=NOW)
    found = look(tmp_path)
    assert keys(found) == ["mac.15k+gemma-3-1b@50", "mac.1b-lek@100", "mac.1b-lek@200"]
    assert found.problems == []
    nested, first, _ = found.checkpoints
    assert (nested.label, nested.run_id, nested.base_model) == ("G1 @0000050", "15k-gemma-3-1b", "gemma-3-1b")
    assert first.file == "adapters-1b-lek/0000100_adapters.safetensors"
    assert first.config_file == "adapters-1b-lek/adapter_config.json"
    assert (first.mtime_ns, first.size_bytes) == (NOW, (tmp_path / first.file).stat().st_size)


def test_a_filter_chooses_runs_by_shell_pattern(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "adapters-1b-a", "1_adapters.safetensors")
    write_checkpoint(tmp_path / "adapters-1b-b", "1_adapters.safetensors")
    assert keys(look(tmp_path, "*-b")) == ["mac.1b-b@1"]


@pytest.mark.parametrize("cut", [1, 40, 100])
def test_a_file_that_is_still_written_waits_and_a_forgotten_one_is_taken(tmp_path: Path, cut: int) -> None:
    path = write_checkpoint(tmp_path / "adapters-1b", "1_adapters.safetensors")
    path.write_bytes(path.read_bytes()[:-cut])
    os.utime(path, ns=(NOW, NOW))
    found = look(tmp_path)
    assert (keys(found), found.growing) == ([], ["adapters-1b/1_adapters.safetensors"])
    os.utime(path, ns=(NOW - 61 * SECOND_NS, NOW - 61 * SECOND_NS))
    assert keys(look(tmp_path)) == ["mac.1b@1"]


def test_a_checkpoint_whose_configuration_has_not_arrived_yet_waits(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "adapters-1b", "1_adapters.safetensors", config=False, mtime_ns=NOW)
    assert look(tmp_path).growing == ["adapters-1b/1_adapters.safetensors"]


def test_two_files_of_one_iteration_are_reported_and_one_is_taken(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "adapters-1b", "0000007_adapters.safetensors")
    write_checkpoint(tmp_path / "adapters-1b", "7_adapters.safetensors")
    found = look(tmp_path)
    assert [c.file for c in found.checkpoints] == ["adapters-1b/0000007_adapters.safetensors"]
    assert "same iteration" in found.problems[0]


def test_hostile_names_are_data(tmp_path: Path) -> None:
    for name in ("1b 'x'", "1b\n", "1b;rm -rf", "1b-ü", "1b-" + "x" * 200):
        write_checkpoint(tmp_path / f"adapters-{name}", "1_adapters.safetensors")
    found = look(tmp_path)
    assert sorted(keys(found)) == ["mac.1b-=C3=BC@1", "mac.1b=0A@1", "mac.1b=20=27x=27@1", "mac.1b=3Brm=20-rf@1"]
    assert len(found.problems) == 1
    assert "too long" in found.problems[0]


def test_links_are_followed_inside_the_source_only(tmp_path: Path) -> None:
    outside = write_checkpoint(tmp_path / "outside", "1_adapters.safetensors")
    root = tmp_path / "root"
    write_checkpoint(root / "adapters-1b", "2_adapters.safetensors")
    (root / "adapters-1b" / "1_adapters.safetensors").symlink_to(outside)
    (root / "adapters-1b" / "3_adapters.safetensors").symlink_to("2_adapters.safetensors")
    (root / "adapters-loop").symlink_to("adapters-loop")
    assert keys(look(root)) == ["mac.1b@2", "mac.1b@3"]


def test_a_source_that_is_not_there_is_a_problem_with_its_remedy(tmp_path: Path) -> None:
    found = look(tmp_path / "nowhere")
    assert found.checkpoints == []
    assert "sources in pipeline.yaml" in found.problems[0]


def test_a_header_made_to_fill_the_memory_is_only_skimmed(tmp_path: Path) -> None:
    header = b'{"a":[0' + (b',{"":' * 50 + b"0" + b"}" * 50) * 20_000 + b"]}"
    folder = tmp_path / "adapters-1b-x"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    (folder / "1_adapters.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    os.utime(folder / "1_adapters.safetensors", ns=(NOW, NOW))
    tracemalloc.start()
    look(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * len(header)


def write_trainer_checkpoint(folder: Path, weights: str, config: str | None, mtime_ns: int = NOW) -> None:
    path = write_checkpoint(folder, weights, config=False, mtime_ns=mtime_ns)
    (folder / "optimizer.pt").write_bytes(b"not looked at")
    if config:
        (folder / config).write_text("{}")
    os.utime(path, ns=(mtime_ns, mtime_ns))


def test_folders_as_hugging_faces_trainer_makes_them(tmp_path: Path) -> None:
    """Adapters and whole models, in order of their steps; what lies beside them is no checkpoint."""
    run = tmp_path / "adapters-1b-lek"
    write_trainer_checkpoint(run / "checkpoint-1000", "adapter_model.safetensors", "adapter_config.json")
    write_trainer_checkpoint(run / "checkpoint-500", "adapter_model.safetensors", "adapter_config.json")
    write_trainer_checkpoint(run / "checkpoint-1500", "model.safetensors", "config.json")
    write_trainer_checkpoint(run / "checkpoint-last", "adapter_model.safetensors", "adapter_config.json")
    write_trainer_checkpoint(run, "adapter_model.safetensors", "adapter_config.json")
    write_checkpoint(run, "0000100_adapters.safetensors", mtime_ns=NOW)
    found = look(tmp_path)
    assert (keys(found), found.problems) == ([f"mac.1b-lek@{step}" for step in (100, 500, 1000, 1500)], [])
    assert [checkpoint.label for checkpoint in found.checkpoints[1:3]] == ["G1-lek @500", "G1-lek @1000"]
    _, adapter, _, full = found.checkpoints
    folder = "adapters-1b-lek/checkpoint-"
    assert adapter.file == f"{folder}500/adapter_model.safetensors"
    assert adapter.config_file == f"{folder}500/adapter_config.json"
    assert (full.file, full.config_file) == (f"{folder}1500/model.safetensors", f"{folder}1500/config.json")


def test_trainer_folders_that_cannot_be_used_say_why(tmp_path: Path) -> None:
    run = tmp_path / "adapters-1b"
    for step, name in ((1, "adapter_model.bin"), (2, "model.safetensors.index.json"), (3, "trainer_state.json")):
        (run / f"checkpoint-{step}").mkdir(parents=True)
        (run / f"checkpoint-{step}" / name).touch()
    write_trainer_checkpoint(run / "checkpoint-7", "adapter_model.safetensors", "adapter_config.json")
    write_checkpoint(run, "0000007_adapters.safetensors", mtime_ns=NOW)
    found = look(tmp_path)
    assert [checkpoint.file for checkpoint in found.checkpoints] == ["adapters-1b/0000007_adapters.safetensors"]
    pickle, parts, doubled = found.problems
    assert "checkpoint-1/adapter_model.bin' is a pickle, which is never loaded" in pickle
    assert "is a model in several files" in parts
    assert "same iteration" in doubled


def test_a_trainer_folder_without_its_configuration_waits(tmp_path: Path) -> None:
    write_trainer_checkpoint(tmp_path / "adapters-1b" / "checkpoint-5", "adapter_model.safetensors", None)
    write_checkpoint(tmp_path / "adapters-1b", "0000001_adapters.safetensors", mtime_ns=NOW)
    found = look(tmp_path)
    assert (keys(found), found.growing) == (["mac.1b@1"], ["adapters-1b/checkpoint-5/adapter_model.safetensors"])


@pytest.mark.parametrize(("prefix", "expected"), [("out-", ["mac.x@3"]), ("", ["mac.1b@1", "mac.out-x@3"])])
def test_other_run_folders_names(tmp_path: Path, prefix: str, expected: list[str]) -> None:
    write_checkpoint(tmp_path / "1b", "1_adapters.safetensors")
    write_trainer_checkpoint(tmp_path / "out-x" / "checkpoint-3", "adapter_model.safetensors", "adapter_config.json")
    source = LocalFolder("mac", tmp_path)
    source.run_prefix = prefix
    assert keys(discover(source, (), now_ns=NOW, settle_s=60)) == expected


class CountingFolder(LocalFolder):
    """A local folder that keeps which of its folders were listed."""

    def __init__(self, name: str, root: Path) -> None:
        super().__init__(name, root)
        self.listed: list[str] = []

    def list_folder(self, path: str) -> list[Entry]:
        self.listed.append(path)
        return super().list_folder(path)


def test_trainer_folders_that_did_not_change_are_not_listed_again(tmp_path: Path) -> None:
    run = tmp_path / "adapters-1b"
    for step in (500, 1000):
        write_trainer_checkpoint(run / f"checkpoint-{step}", "adapter_model.safetensors", "adapter_config.json", 1)
    long_ago = NOW - 3600 * SECOND_NS
    for folder in (run / "checkpoint-500", run / "checkpoint-1000", run):
        os.utime(folder, ns=(long_ago, long_ago))
    source, memory = CountingFolder("mac", tmp_path), Memory()

    def listed() -> list[str]:
        source.listed.clear()
        found = discover(source, FAMILIES, now_ns=NOW, settle_s=60, memory=memory, full_look_s=3600)
        assert keys(found)[:2] == ["mac.1b@500", "mac.1b@1000"]
        return source.listed

    inside = ["adapters-1b", "adapters-1b/checkpoint-1000", "adapters-1b/checkpoint-500"]
    assert listed() == ["", *inside]
    assert listed() == [""]
    write_trainer_checkpoint(run / "checkpoint-1500", "adapter_model.safetensors", "adapter_config.json", 1)
    assert listed() == ["", *inside[:2], "adapters-1b/checkpoint-1500", inside[2]]

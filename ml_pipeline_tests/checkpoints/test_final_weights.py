"""Weights at other places than under their iteration: found, known for a copy, or reported with a reason."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from ml_pipeline.checkpoints.discovery import Discovery, Memory, discover
from ml_pipeline.checkpoints.source import Entry, LocalFolder
from ml_pipeline_tests.checkpoints.files import SECOND_NS

NOW = 2_000_000_000 * SECOND_NS
START = NOW - 10_000 * SECOND_NS
RUN = "adapters-lek"


def write(path: Path, step: int, *, age_s: int = 600, config: dict[str, Any] | None = None) -> Path:
    """Weights as they are after so many steps, beside what configuration there is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.full((4, 2), step, np.float32)
    path.write_bytes(save({"layer.lora_a": values, "layer.lora_b": values.T.copy()}))
    os.utime(path, ns=(NOW - age_s * SECOND_NS, NOW - age_s * SECOND_NS))
    if config is not None:
        beside = path.with_name("adapter_config.json")
        beside.write_text(json.dumps(config))
        os.utime(beside, ns=(START, START))
    return path


def numbered(root: Path, *steps: int, run: str = RUN) -> None:
    for step in steps:
        write(root / run / f"{step:07d}_adapters.safetensors", step, age_s=5000 - step)


def look(root: Path, memory: Memory | None = None) -> Discovery:
    return discover(LocalFolder("mac", root), (), now_ns=NOW, settle_s=60, memory=memory, full_look_s=3600)


def found(root: Path) -> list[str]:
    return [f"{checkpoint.key} {checkpoint.file.removeprefix(RUN)}" for checkpoint in look(root).checkpoints]


MLX = {"iters": 1000, "lora_parameters": {"rank": 2}}


def test_the_last_weights_of_mlx_lm_are_a_checkpoint_where_they_have_no_number(tmp_path: Path) -> None:
    numbered(tmp_path, 300, 600, 900)
    write(tmp_path / RUN / "adapters.safetensors", 1000, config=MLX)
    assert found(tmp_path)[2:] == [
        "mac.lek@900 /0000900_adapters.safetensors",
        "mac.lek@1000 /adapters.safetensors",
    ]
    last = look(tmp_path).checkpoints[-1]
    assert (last.label, last.config_file) == ("lek @1000", f"{RUN}/adapter_config.json")
    assert look(tmp_path).problems == []


def test_a_training_that_saves_only_at_its_end_is_found(tmp_path: Path) -> None:
    write(tmp_path / RUN / "adapters.safetensors", 15, config={"iters": 15})
    write(tmp_path / RUN / "gemma" / "adapters.safetensors", 40, config={"iters": 40})
    assert found(tmp_path) == ["mac.lek@15 /adapters.safetensors", "mac.lek+gemma@40 /gemma/adapters.safetensors"]


@pytest.mark.parametrize(
    ("step", "age_s", "config", "growing", "reason"),
    [
        (900, 10, MLX, False, ""),  # at a save: the same as the numbered file
        (900, 600, {}, False, ""),
        (950, 10, MLX, True, ""),  # written just now: perhaps its numbered copy comes next
        (950, 600, {}, False, "nothing beside it tells which iteration it is"),
        (950, 600, {"iters": "many"}, False, "nothing beside it tells"),
        (950, 600, {"iters": True}, False, "nothing beside it tells"),
        (950, 600, None, False, "there is no adapter_config.json beside it"),
        (950, 20_000, MLX, False, "older than the configuration beside it, so of an earlier training"),
        (950, 600, {"iters": 900}, False, ""),  # 900 was saved under its number
    ],
)
def test_what_is_not_the_last_weights(
    tmp_path: Path, step: int, age_s: int, config: dict[str, Any] | None, growing: bool, reason: str
) -> None:
    numbered(tmp_path, 300, 900)
    write(tmp_path / RUN / "adapters.safetensors", step, age_s=age_s, config=config)
    seen = look(tmp_path)
    assert [checkpoint.iteration for checkpoint in seen.checkpoints] == [300, 900]
    assert seen.growing == ([f"{RUN}/adapters.safetensors"] if growing else [])
    if reason:
        (problem,) = seen.problems
        assert f"source mac: '{RUN}/adapters.safetensors' is not scored: " in problem
        assert reason in problem
        assert "Rename it to <iteration>_adapters.safetensors" in problem
    else:
        assert seen.problems == []


def test_a_restarted_training_does_not_lend_its_first_weights_the_last_iteration(tmp_path: Path) -> None:
    numbered(tmp_path, 600, 900)
    # Started anew: 300 is younger than 900, and adapters.safetensors is its copy.
    write(tmp_path / RUN / "0000300_adapters.safetensors", 7, age_s=610)
    write(tmp_path / RUN / "adapters.safetensors", 7, age_s=611, config=MLX)
    seen = look(tmp_path)
    assert ([one.iteration for one in seen.checkpoints], seen.problems) == ([300, 600, 900], [])


def test_last_weights_written_anew_in_place_are_seen(tmp_path: Path) -> None:
    numbered(tmp_path, 300, 600)
    final = write(tmp_path / RUN / "adapters.safetensors", 600, config=MLX)
    os.utime(tmp_path / RUN, ns=(START, START))
    memory = Memory()
    assert [one.iteration for one in look(tmp_path, memory).checkpoints] == [300, 600]
    write(final, 1000, age_s=300)
    os.utime(tmp_path / RUN, ns=(START, START))  # as a file system that does not note what happens in a file
    assert [one.iteration for one in look(tmp_path, memory).checkpoints] == [300, 600, 1000]


PEFT = {"peft_type": "LORA", "r": 2}


def trainer(root: Path, folder: str, step: int, *, state: int | None = None, config: Any = PEFT) -> Path:
    path = write(root / RUN / folder / "adapter_model.safetensors", step, config=config)
    if state is not None:
        content = {
            "best_metric": None,
            "epoch": 1.5,
            "global_step": state,
            "max_steps": 9,
            "log_history": [{"step": 3}],
        }
        path.with_name("trainer_state.json").write_text(json.dumps(content))
    return path


def test_trainers_other_folders(tmp_path: Path) -> None:
    trainer(tmp_path, "checkpoint-500", 500)
    trainer(tmp_path, "iter_0001152", 1152)
    trainer(tmp_path, "global_step1200", 1200)
    trainer(tmp_path, "step-1300/mine", 1300)
    trainer(tmp_path, "checkpoint-1400/mine", 1400)
    trainer(tmp_path, "epoch_3", 1500, state=1500)
    trainer(tmp_path, "", 1600, state=1600)
    # Copies of checkpoints under other names are no further ones.
    trainer(tmp_path, "checkpoint-best", 500)
    trainer(tmp_path, "final", 1152)
    assert sorted(found(tmp_path), key=lambda line: int(line.split("@")[1].split()[0])) == [
        "mac.lek@500 /checkpoint-500/adapter_model.safetensors",
        "mac.lek@1152 /iter_0001152/adapter_model.safetensors",
        "mac.lek@1200 /global_step1200/adapter_model.safetensors",
        "mac.lek@1300 /step-1300/mine/adapter_model.safetensors",
        "mac.lek@1400 /checkpoint-1400/mine/adapter_model.safetensors",
        "mac.lek@1500 /epoch_3/adapter_model.safetensors",
        "mac.lek@1600 /adapter_model.safetensors",
    ]
    assert look(tmp_path).problems == []


def test_a_run_of_mlx_lm_in_a_numbered_folder_stays_a_run(tmp_path: Path) -> None:
    numbered(tmp_path, 100, 200, run=f"{RUN}/step-3")
    assert [checkpoint.key for checkpoint in look(tmp_path).checkpoints] == ["mac.lek+step-3@100", "mac.lek+step-3@200"]


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / RUN / name).parent.mkdir(parents=True, exist_ok=True)
        (root / RUN / name).write_bytes(b"weights")


@pytest.mark.parametrize(
    ("files", "problems"),
    [
        (["checkpoint-10/adapter_model-00001-of-00002.safetensors",
          "checkpoint-10/adapter_model.safetensors.index.json"],
         ["'{run}/checkpoint-10/adapter_model-00001-of-00002.safetensors' is an adapter in several files"]),
        (["adapter_model.safetensors.index.json"],
         ["'{run}/adapter_model.safetensors.index.json' is an adapter in several files. Save it as one"]),
        (["checkpoint-10/model-00001-of-00004.safetensors"], ["is a model in several files"]),
        (["25_adapters.npz", "50_adapters.npz", "adapters.npz"],
         ["'{run}/25_adapters.npz' and 2 more are in NumPy's format, as mlx-examples once saved adapters"]),
        (["adapter_model.bin"], ["'{run}/adapter_model.bin' is a pickle, which is never loaded"]),
        (["checkpoint-7/lora.safetensors", "checkpoint-7/optimizer.pt"],
         ["'{run}/checkpoint-7' is a checkpoint by its name, but holds neither adapter_model.safetensors nor "
          "model.safetensors: '{run}/checkpoint-7/lora.safetensors'"]),
        (["checkpoint-7/global_step7/mp_rank_00_model_states.pt"],
         ["'{run}/checkpoint-7/global_step7/mp_rank_00_model_states.pt'"]),
        (["iter_0000010/mp_rank_00/model_rng.pt"], ["'{run}/iter_0000010' is a checkpoint by its name, but holds"]),
        (["pytorch_lora_weights.safetensors"], ["'{run}' holds weights, but no checkpoint that is read here: "
                                                "'{run}/pytorch_lora_weights.safetensors'. Read are"]),
        (["out/a/lit_model.pth"], ["'{run}/out/a/lit_model.pth'"]),
        # What no one takes for weights.
        (["optimizer.pt", "checkpoint-3/rng_state_0.pth", "checkpoint-3/training_args.bin", "tokenizer.model"], []),
        (["notes.txt", "logs/events.out"], []),
    ],
)  # fmt: skip
def test_what_is_not_read_is_reported_with_its_reason(tmp_path: Path, files: list[str], problems: list[str]) -> None:
    touch(tmp_path, *files)
    seen = look(tmp_path)
    assert seen.checkpoints == []
    assert len(seen.problems) == len(problems)
    for said, expected in zip(seen.problems, problems, strict=True):
        assert said.startswith("source mac: ")
        assert expected.format(run=RUN) in said


def test_final_and_epoch_folders_of_peft_say_what_is_missing(tmp_path: Path) -> None:
    trainer(tmp_path, "", 3)
    trainer(tmp_path, "epoch_0", 1)
    trainer(tmp_path, "checkpoint-last", 2, config=None)
    final, last, epoch = sorted(look(tmp_path).problems, key=len)
    assert "adapter_model.safetensors' is not scored: nothing beside it tells which iteration it is" in final
    assert "Put it, with its configuration, into a folder checkpoint-<iteration>." in final
    assert "'adapters-lek/checkpoint-last/adapter_model.safetensors' is not scored: there is no adapter_config" in last
    assert "its folder counts epochs, and nothing beside it tells which iteration it is" in epoch


def test_a_pickle_beside_the_same_weights_is_no_problem(tmp_path: Path) -> None:
    trainer(tmp_path, "", 16, state=16)
    touch(tmp_path, "adapter_model.bin", "checkpoint-4/adapter_model.bin")
    trainer(tmp_path, "checkpoint-4", 4)
    assert (sorted(one.iteration for one in look(tmp_path).checkpoints), look(tmp_path).problems) == ([4, 16], [])


def test_a_second_adapter_in_one_checkpoint_is_reported(tmp_path: Path) -> None:
    trainer(tmp_path, "checkpoint-5", 5)
    trainer(tmp_path, "checkpoint-5/reference", 1)
    assert found(tmp_path) == ["mac.lek@5 /checkpoint-5/adapter_model.safetensors"]
    (problem,) = look(tmp_path).problems
    assert "checkpoint-5/reference/adapter_model.safetensors' is a second adapter in one checkpoint" in problem


def test_weights_that_contradict_a_numbered_checkpoint_are_reported(tmp_path: Path) -> None:
    trainer(tmp_path, "checkpoint-5", 5)
    trainer(tmp_path, "", 9, state=5)
    (problem,) = look(tmp_path).problems
    assert "the run has another checkpoint of its iteration, 5" in problem


def test_a_source_whose_folders_are_called_otherwise_says_so(tmp_path: Path) -> None:
    numbered(tmp_path, 100, run="my-run")
    (tmp_path / "notes").mkdir()
    (problem,) = look(tmp_path).problems
    assert "no folder in it begins with 'adapters-', but 'my-run' holds checkpoints" in problem
    (inside,) = look(tmp_path / "my-run").problems
    assert "its folder is itself a run" in inside
    numbered(tmp_path, 100)
    assert look(tmp_path).problems == []


class CountingFolder(LocalFolder):
    """A local folder that counts what is listed and opened."""

    def __init__(self, name: str, root: Path) -> None:
        super().__init__(name, root)
        self.calls: list[str] = []

    def list_folder(self, path: str) -> list[Entry]:
        self.calls.append(path)
        return super().list_folder(path)

    def open(self, path: str, offset: int = 0) -> Any:
        self.calls.append(path)
        return super().open(path, offset)


def test_a_settled_run_with_problems_costs_nothing_more(tmp_path: Path) -> None:
    trainer(tmp_path, "checkpoint-5/mine", 5)
    trainer(tmp_path, "epoch_0", 1)
    touch(tmp_path, "1_adapters.npz")
    for folder in sorted((tmp_path / RUN).rglob("*"), reverse=True):
        os.utime(folder, ns=(START, START))
    os.utime(tmp_path / RUN, ns=(START, START))
    source, memory = CountingFolder("mac", tmp_path), Memory()

    def again() -> list[str]:
        source.calls.clear()
        seen = discover(source, (), now_ns=NOW, settle_s=60, memory=memory, full_look_s=3600)
        assert [one.key for one in seen.checkpoints] == ["mac.lek@5"]
        assert len(seen.problems) == 2
        return source.calls

    assert len(again()) > 3
    assert again() == [""]
    # A change in the folder of the named adapter shows, two levels down.
    (tmp_path / RUN / "checkpoint-5" / "mine" / "more.txt").touch()
    assert len(again()) > 3

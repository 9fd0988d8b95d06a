"""MB a second of converting one adapter of 222 MB, ours against cp of the same file and a plain numpy implementation.

    python -m ml_pipeline_tests.benchmarks.convert [--json] [--repeats N] [--to gguf|peft]

- ours: `write_gguf_lora` or `write_peft`, as the pipeline calls them, until the file is on the disk.
- cp: coreutils' copy of the adapter's file, then fsync; cp_unsynced: without.
- numpy: load all tensors, transpose each into a copy, save all by the gguf library's writer or safetensors; then fsync.
- convert_lora_to_gguf: llama.cpp's script, where the environment says where it is (`CONVERT_LORA_TO_GGUF`) and which
  folder holds the config.json of a Llama 3 8B (`HF_BASE`).

Each is done in a process of its own, forked when everything is imported, so that its peak memory (the pages of mapped
files included) is its own. The source lies in the page cache. Linux only.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
from safetensors.numpy import load_file, save_file

from ml_pipeline.adapters import read_adapter, write_gguf_lora
from ml_pipeline.adapters.base_gguf import read_base_facts
from ml_pipeline.adapters.gguf_plan import plan_conversion
from ml_pipeline.adapters.peft_files import write_peft
from ml_pipeline.adapters.safetensors_header import read_header
from ml_pipeline_tests.benchmarks.result import compare, interleaved, medians, print_result

_FORKED = multiprocessing.get_context("fork")

LAYERS, HIDDEN, FFN, KV, HEADS, HEADS_KV, RANK, SCALE = 32, 4096, 14336, 1024, 32, 8, 21, 20.0
"""The shapes of Llama 3 8B: all seven projections of every layer, 220 MB of float32."""

MODULES = {
    "self_attn.q_proj": ("attn_q", HIDDEN, HIDDEN),
    "self_attn.k_proj": ("attn_k", KV, HIDDEN),
    "self_attn.v_proj": ("attn_v", KV, HIDDEN),
    "self_attn.o_proj": ("attn_output", HIDDEN, HIDDEN),
    "mlp.gate_proj": ("ffn_gate", FFN, HIDDEN),
    "mlp.up_proj": ("ffn_up", FFN, HIDDEN),
    "mlp.down_proj": ("ffn_down", HIDDEN, FFN),
}


def make_adapter(folder: Path) -> None:
    """Write the adapter, and a base whose header is whole and whose data is a hole."""
    random = np.random.default_rng(0)
    tensors = {}
    for layer in range(LAYERS):
        for module, (_, out_size, in_size) in MODULES.items():
            stem = f"model.layers.{layer}.{module}"
            tensors[f"{stem}.lora_a"] = random.standard_normal((in_size, RANK), np.float32)
            tensors[f"{stem}.lora_b"] = random.standard_normal((RANK, out_size), np.float32)
    save_file(tensors, folder / "adapters.safetensors")
    parameters = {"rank": RANK, "scale": SCALE, "dropout": 0.0}
    config = {"fine_tune_type": "lora", "num_layers": LAYERS, "lora_parameters": parameters}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    writer = gguf.GGUFWriter(folder / "base.gguf", "llama")
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS_KV)
    for layer in range(LAYERS):
        for name, out_size, in_size in MODULES.values():
            shape = (out_size, in_size)
            writer.add_tensor_info(f"blk.{layer}.{name}.weight", shape, np.dtype(np.float16), 2 * out_size * in_size)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()


class Converting:
    """Every way to convert the adapter in `folder`; each returns its seconds."""

    def __init__(self, folder: Path, to: Literal["gguf", "peft"]) -> None:
        self.to = to
        self.source, self.base, self.out = folder / "adapters.safetensors", folder / "base.gguf", folder / "out"
        self.adapter = read_adapter(self.source, folder / "adapter_config.json")
        self.header = read_header(self.source)
        self.plan = plan_conversion(self.adapter, self.header, read_base_facts(self.base))

    def ours(self) -> float:
        """By the pipeline's own functions."""
        start = time.perf_counter()
        if self.to == "gguf":
            write_gguf_lora(self.adapter, self.base, self.out / "lora.gguf")
        else:
            write_peft(self.adapter, self.out)
        return time.perf_counter() - start

    def cp(self) -> float:
        """By coreutils."""
        start = time.perf_counter()
        subprocess.run(["cp", self.source, self.out], check=True)
        sync(self.out / self.source.name)
        return time.perf_counter() - start

    def cp_unsynced(self) -> float:
        """By coreutils, which then leaves the file in memory."""
        start = time.perf_counter()
        subprocess.run(["cp", self.source, self.out], check=True)
        return time.perf_counter() - start

    def numpy(self) -> float:
        """Everything at once: load, transpose, save."""
        start = time.perf_counter()
        tensors = load_file(self.source)
        if self.to == "peft":
            turned = {name: np.ascontiguousarray(value.T) for name, value in tensors.items()}
            save_file(turned, self.out / "plain")
        else:
            writer = gguf.GGUFWriter(self.out / "plain", "llama")
            writer.add_type("adapter")
            writer.add_string("adapter.type", "lora")
            writer.add_float32("adapter.lora.alpha", SCALE * RANK)
            for planned in self.plan:
                a, b = tensors[planned.pair.a.name].T, tensors[planned.pair.b.name].T
                if heads := planned.permuted_heads:
                    b = b.reshape(heads, 2, len(b) // heads // 2, RANK).swapaxes(1, 2).reshape(b.shape)
                writer.add_tensor(f"{planned.gguf_name}.weight.lora_a", np.ascontiguousarray(a))
                writer.add_tensor(f"{planned.gguf_name}.weight.lora_b", np.ascontiguousarray(b))
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()
        sync(self.out / "plain")
        return time.perf_counter() - start

    def convert_lora_to_gguf(self) -> float:
        """By llama.cpp's own script, out of the PEFT form; the start of its process is part of it."""
        command = [sys.executable, os.environ["CONVERT_LORA_TO_GGUF"], "--base", os.environ["HF_BASE"]]
        peft = write_peft(self.adapter, self.source.parent / "peft")
        start = time.perf_counter()
        command += ["--outtype", "f32", "--outfile", str(self.out / "script.gguf"), str(peft)]
        subprocess.run(command, check=True, capture_output=True)
        sync(self.out / "script.gguf")
        return time.perf_counter() - start


def sync(path: Path) -> None:
    """Wait until the file is on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


class Measuring:
    """Runs each way in a process of its own, and keeps how much memory it took."""

    def __init__(self, ways: Converting) -> None:
        self.ways = ways
        self.megabytes = ways.source.stat().st_size / 1e6
        self.peaks_mb: dict[str, list[float]] = {}

    def megabytes_a_second(self, name: str) -> float:
        """Of one conversion, whose result is removed."""
        self.ways.out.mkdir()
        results: multiprocessing.SimpleQueue[tuple[float, float]] = _FORKED.SimpleQueue()
        process = _FORKED.Process(target=self._run, args=(name, results))
        process.start()
        process.join()
        assert process.exitcode == 0
        seconds, peak_mb = results.get()
        self.peaks_mb.setdefault(name, []).append(peak_mb)
        shutil.rmtree(self.ways.out)
        os.sync()  # what one leaves to be written does not slow the next
        return self.megabytes / seconds

    def _run(self, name: str, results: Any) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
        before_mb = _memory_mb("VmRSS")
        seconds = getattr(self.ways, name)()
        results.put((seconds, _memory_mb("VmHWM") - before_mb))


def _memory_mb(field: str) -> float:
    """Of this process, mapped files included."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[field].split()[0]) / 1e3


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="MB a second of converting an adapter")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--to", choices=["gguf", "peft"], default="gguf")
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        make_adapter(Path(place))
        os.sync()
        measuring = Measuring(Converting(Path(place), arguments.to))
        names = ["ours", "cp", "numpy", "cp_unsynced"]
        if arguments.to == "gguf" and "CONVERT_LORA_TO_GGUF" in os.environ:
            names.append("convert_lora_to_gguf")
        subjects = {name: functools.partial(measuring.megabytes_a_second, name) for name in names}
        interleaved(subjects, 1)  # the first of each is not counted: the source comes into the page cache
        figures = interleaved(subjects, arguments.repeats)
        largest_mb = max(entry.size_bytes for entry in measuring.ways.header.tensors) / 1e6
    context = {
        "to": arguments.to,
        "megabytes": round(measuring.megabytes, 1),
        "largest_tensor_mb": round(largest_mb, 2),
        "peak_memory_mb": {name: round(max(measuring.peaks_mb[name]), 1) for name in ("ours", "numpy")},
        "repeats": arguments.repeats,
        "all_figures": {name: [round(value) for value in values] for name, values in figures.items()},
    }
    result = compare("convert", "MB/s", medians(figures), more_is_better=True, context=context)
    print_result(result, as_json=arguments.json)


if __name__ == "__main__":
    main()

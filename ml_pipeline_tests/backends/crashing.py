"""Has native libraries crash in child processes: really, by a signal, at the calls that a test chooses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_PATCH = '''
"""Read by every Python that starts with this folder on its path: see crashing.py."""

import os
import signal
import sys

if rule := os.environ.get("CRASH_WHEN"):
    import llama_cpp

    # What renders chat templates touches no native library.
    if "template_child" not in " ".join(sys.orig_argv):
        with open(os.environ["CRASH_COUNT"], "a") as file:
            file.write("child\\n")
    seen = {"extra_buffers": True, "flash_attention": True, "threads": 0}
    load, make, decode = llama_cpp.llama_model_load_from_file, llama_cpp.llama_init_from_model, llama_cpp.llama_decode
    quantise = llama_cpp.llama_model_quantize

    def crash():
        os.kill(os.getpid(), int(os.environ["CRASH_SIGNAL"]))

    def loading(path, params):
        seen["extra_buffers"] = params.use_extra_bufts
        if rule == "loading":
            crash()
        return load(path, params)

    def making(model, params):
        seen.update(flash_attention=params.flash_attn_type != 0, threads=params.n_threads)
        return make(model, params)

    def decoding(context, batch):
        if eval(rule, {"n_tokens": batch.n_tokens, "loading": False, **seen}):
            crash()
        return decode(context, batch)

    def quantising(*arguments):
        if rule == "quantising":
            crash()
        return quantise(*arguments)

    llama_cpp.llama_model_load_from_file, llama_cpp.llama_init_from_model = loading, making
    llama_cpp.llama_decode, llama_cpp.llama_model_quantize = decoding, quantising

if module := os.environ.get("CRASH_IMPORT"):
    __import__(module)

if place := os.environ.get("CRASH_AT_ADAPTER"):
    import llama_cpp

    init = llama_cpp.llama_adapter_lora_init

    def initialising(model, path):
        with open(os.environ["CRASH_COUNT"] + ".adapters", "a+") as file:
            file.seek(0)
            known = file.read().splitlines()
            if path.decode() not in known:
                file.write(path.decode() + "\\n")
                known.append(path.decode())
        if known.index(path.decode()) == int(place):
            os.kill(os.getpid(), signal.SIGSEGV)
        return init(model, path)

    llama_cpp.llama_adapter_lora_init = initialising

if os.environ.get("CRASH_MLX"):
    import mlx.core

    mlx.core.eval = lambda *arrays: os.abort()
'''


class Crashes:
    """Crashes of child processes from now on: `when` is an expression over extra_buffers, flash_attention, threads and
    n_tokens, asked at each decode, or "loading" or "quantising"."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (folder / "sitecustomize.py").write_text(_PATCH)
        self._monkeypatch = monkeypatch
        self._count = folder / "children"
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))
        monkeypatch.setenv("CRASH_COUNT", str(self._count))

    def when(self, rule: str, signal_number: int) -> None:
        """Crash by this signal when the rule holds."""
        self._monkeypatch.setenv("CRASH_WHEN", rule)
        self._monkeypatch.setenv("CRASH_SIGNAL", str(int(signal_number)))

    def in_mlx(self) -> None:
        """Have mlx abort the process at its first computation."""
        self._monkeypatch.setenv("CRASH_MLX", "1")

    def importing(self, module: str) -> None:
        """Have the children import this module before all else."""
        self._monkeypatch.setenv("CRASH_IMPORT", module)

    def at_adapter(self, place: int) -> None:
        """Crash whenever that adapter is loaded which was the one at this place, from 0, of all that ever were."""
        self._monkeypatch.setenv("CRASH_AT_ADAPTER", str(place))

    def stop(self) -> None:
        """No more crashes."""
        for name in ("CRASH_WHEN", "CRASH_AT_ADAPTER", "CRASH_MLX"):
            self._monkeypatch.delenv(name, raising=False)

    @property
    def children(self) -> int:
        """How many child processes there were."""
        return self._count.read_text().count("child") if self._count.exists() else 0

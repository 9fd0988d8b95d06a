"""Loads GGUF adapters in a process of its own, which may die of them: `python -m ...native HOW BASE ADAPTER...`.

HOW is `backend`: through the project's own entry point, a line of output for each adapter; or `bare`: llama.cpp without
any check, as the tools that trust a file do.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ml_pipeline.backends.interface import AdapterFile
from ml_pipeline.backends.llama_cpp import LlamaCppBackend
from ml_pipeline.errors import AdapterError
from ml_pipeline_tests.adapters.tiny_models import llama_cpp_logits


def load(how: str, base: Path, adapters: list[Path], timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    """Load the adapters one after the other in a new process."""
    command = [sys.executable, "-m", __name__, how, str(base), *map(str, adapters)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)


def main(how: str, base: Path, adapters: list[Path]) -> None:
    """Do in this process what `load` asks for."""
    if how == "bare":
        for path in adapters:
            print(llama_cpp_logits(base, path).shape)
        return
    backend = LlamaCppBackend(base, "tiny", sequences=1, context_tokens=256, threads=1)
    for path in adapters:
        try:
            backend.use_adapter(AdapterFile(path, "0" * 64))
            print(f"{path.name}: applied", flush=True)
        except AdapterError as error:
            print(f"{path.name}: refused: {str(error).splitlines()[0]}", flush=True)
    backend.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), [Path(argument) for argument in sys.argv[3:]])

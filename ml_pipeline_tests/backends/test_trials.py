"""A native crash is a sentence: it happens in a child, safer kernels are tried, and what was found out is kept."""

from __future__ import annotations

import errno
import importlib.metadata
import json
import os
import platform
import signal
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ml_pipeline import files
from ml_pipeline.backend_settings import MlxSettings
from ml_pipeline.backends import trials as trials_module
from ml_pipeline.backends.kernels import Kernels
from ml_pipeline.backends.llama_cpp import LlamaCppBackend, decoded_weights, trial
from ml_pipeline.backends.llama_server import LlamaServerBackend
from ml_pipeline.backends.mlx import MlxBackend
from ml_pipeline.backends.trials import exit_words
from ml_pipeline.errors import BackendError
from ml_pipeline_tests.adapters.tiny_models import tiny_llama
from ml_pipeline_tests.backends.crashing import Crashes
from ml_pipeline_tests.backends.llama_servers import require_llama_server, server_settings
from ml_pipeline_tests.backends.requests import answer, ask
from ml_pipeline_tests.backends.tiny_mlx import write_model

EXTRA, FLASH = "without repacked weights (extra buffers)", "without flash attention"


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny")).gguf_path


@pytest.fixture
def crashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Crashes:
    folder = tmp_path / "crashing"
    folder.mkdir()
    return Crashes(folder, monkeypatch)


@pytest.fixture
def trials(tmp_path: Path) -> Path:
    return tmp_path / "trials"


def backend_of(gguf: Path, trials: Path, **changes: Any) -> LlamaCppBackend:
    options: dict[str, Any] = {"sequences": 3, "context_tokens": 256, "threads": 4} | changes
    return LlamaCppBackend(gguf, "tiny", trials=trials, **options)


@pytest.fixture
def closing() -> Iterator[list[Any]]:
    made: list[Any] = []
    yield made
    for backend in made:
        backend.close()


def test_from_the_usual_to_the_safest() -> None:
    assert [kernels.reductions(Kernels(8)) for kernels in Kernels(8).safer()] == [
        "",
        EXTRA,
        f"{EXTRA}, {FLASH}",
        f"{EXTRA}, {FLASH}, with 4 of 8 threads",
        f"{EXTRA}, {FLASH}, with 1 of 8 threads",
    ]
    assert len(list(Kernels(1).safer())) == 3


def test_how_a_process_ended() -> None:
    assert exit_words(-11) == "was ended by SIGSEGV (Segmentation fault)"
    assert exit_words(3) == "ended with exit code 3"
    assert exit_words(-63) == "was ended by signal 63"


def test_a_sound_library_is_tried_once(gguf: Path, trials: Path, crashes: Crashes, closing: list[Any]) -> None:
    crashes.when("False", signal.SIGSEGV)
    for _ in range(2):
        closing.append(backend_of(gguf, trials))
        assert crashes.children == 1
        assert closing[-1].remarks == ()
        assert "without" not in closing[-1].identity().backend_version
    # Other options choose other kernels.
    closing.append(backend_of(gguf, trials, kv_type="f32"))
    assert crashes.children == 2
    assert len(list(trials.iterdir())) == 2


@pytest.mark.parametrize(
    ("rule", "reductions", "during", "children"),
    [
        ("extra_buffers", EXTRA, "decoding a prompt of 64 tokens", 2),
        ("extra_buffers and n_tokens == 1", EXTRA, "decoding one token", 2),
        ("extra_buffers and n_tokens == 3", EXTRA, "decoding 3 tokens, one of each sequence", 2),
        ("flash_attention", f"{EXTRA}, {FLASH}", "decoding a prompt of 64 tokens", 3),
        ("threads > 2", f"{EXTRA}, {FLASH}, with 2 of 4 threads", "decoding a prompt of 64 tokens", 4),
        ("threads > 1", f"{EXTRA}, {FLASH}, with 1 of 4 threads", "decoding a prompt of 64 tokens", 5),
    ],
)
def test_safer_kernels_take_over_and_are_kept(
    gguf: Path,
    trials: Path,
    crashes: Crashes,
    closing: list[Any],
    rule: str,
    reductions: str,
    during: str,
    children: int,
) -> None:
    crashes.when(rule, signal.SIGSEGV)
    closing.append(backend_of(gguf, trials))
    (remark,) = closing[0].remarks
    assert remark.startswith(f"llama.cpp runs {reductions}: in a trial as usual, {gguf}, it was ended by SIGSEGV")
    assert f"while {during}. llama-cpp-python " in remark
    assert closing[0].identity().backend_version.endswith(f", kv f16, {reductions}")
    assert crashes.children == children
    (record,) = [json.loads(file.read_text()) for file in trials.iterdir()]
    assert record["found"]["remark"] == remark
    closing.append(backend_of(gguf, trials))
    assert crashes.children == children
    assert closing[1].remarks == (remark,)
    assert answer(closing[1], ask("tell", max_tokens=4)).error is None


def test_the_native_library_is_given_the_safer_options(
    gguf: Path, trials: Path, crashes: Crashes, closing: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import llama_cpp

    crashes.when("flash_attention or threads > 2", signal.SIGBUS)
    seen: dict[str, Any] = {}
    load, make = llama_cpp.llama_model_load_from_file, llama_cpp.llama_init_from_model

    def loading(path: Any, params: Any) -> Any:
        seen["extra_buffers"] = params.use_extra_bufts
        return load(path, params)

    def making(model: Any, params: Any) -> Any:
        seen.update(flash=params.flash_attn_type, threads=params.n_threads, batch_threads=params.n_threads_batch)
        return make(model, params)

    monkeypatch.setattr(llama_cpp, "llama_model_load_from_file", loading)
    monkeypatch.setattr(llama_cpp, "llama_init_from_model", making)
    closing.append(backend_of(gguf, trials))
    assert seen == {"extra_buffers": False, "flash": 0, "threads": 2, "batch_threads": 2}
    assert "SIGBUS" in closing[0].remarks[0]


def test_where_nothing_works_the_error_says_what_was_tried_and_what_to_do(
    gguf: Path, trials: Path, crashes: Crashes
) -> None:
    crashes.when("True", signal.SIGSEGV)
    with pytest.raises(BackendError) as error:
        backend_of(gguf, trials)
    first, *lines = str(error.value).splitlines()
    assert first.startswith(f"{gguf}: llama.cpp crashes with this model on this machine (llama-cpp-python ")
    assert first.endswith("in every way that was tried: 5 problems")
    end = "it was ended by SIGSEGV (Segmentation fault) while decoding a prompt of 64 tokens"
    assert [line.split(end)[0] for line in lines[:-1]] == [
        "  - as usual: ",
        f"  - {EXTRA}: ",
        f"  - {EXTRA}, {FLASH}: ",
        f"  - {EXTRA}, {FLASH}, with 2 of 4 threads: ",
        f"  - {EXTRA}, {FLASH}, with 1 of 4 threads: ",
    ]
    version = importlib.metadata.version("llama-cpp-python")
    assert f'CMAKE_ARGS="-DGGML_NATIVE=OFF" {sys.executable} -m pip install' in lines[-1]
    assert f" --no-binary llama-cpp-python llama-cpp-python=={version})" in lines[-1]
    assert "another backend" in lines[-1]
    assert not trials.exists(), "a crash for good is not kept: the next run tries again"


def test_a_crash_at_loading_is_one_too(gguf: Path, trials: Path, crashes: Crashes) -> None:
    crashes.when("loading", signal.SIGILL)
    with pytest.raises(BackendError, match=r"was ended by SIGILL \(Illegal instruction\) while loading the weights"):
        backend_of(gguf, trials)


def test_want_of_memory_is_called_so_and_forgotten(
    gguf: Path, trials: Path, crashes: Crashes, closing: list[Any]
) -> None:
    crashes.when("True", signal.SIGKILL)
    with pytest.raises(BackendError, match=r"when memory runs out\. Lower sequences or context_tokens"):
        backend_of(gguf, trials)
    crashes.when("extra_buffers", signal.SIGKILL)
    closing.append(backend_of(gguf, trials))
    assert "without repacked weights" in closing[0].remarks[0]
    assert not trials.exists()


def test_a_damaged_record_is_made_again(gguf: Path, trials: Path, crashes: Crashes, closing: list[Any]) -> None:
    crashes.when("extra_buffers", signal.SIGSEGV)
    closing.append(backend_of(gguf, trials))
    (file,) = trials.iterdir()
    for damaged in ["", "[]", '{"found": {"kernels": {"threads": 4096}, "reductions": "", "remark": ""}}']:
        file.write_text(damaged)
        before = crashes.children
        closing.append(backend_of(gguf, trials))
        assert crashes.children == before + 2
        assert closing[-1].remarks == closing[0].remarks


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_trial_that_is_told_to_end_says_nothing_of_the_library(
    gguf: Path, trials: Path, crashes: Crashes, number: signal.Signals
) -> None:
    """As `ml-pipeline dev` does when it ends, and Ctrl-C."""
    crashes.when("extra_buffers", number)
    with pytest.raises(BackendError, match=rf"the trial of llama\.cpp was ended by {number.name} .*, from outside"):
        backend_of(gguf, trials)
    assert crashes.children == 1
    assert not trials.exists()


def test_a_trial_that_hangs_is_ended_and_forgotten(
    gguf: Path, trials: Path, crashes: Crashes, closing: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "_LEAST_LIMIT_S", 6.0)
    crashes.when("extra_buffers", signal.SIGSTOP)
    began = time.monotonic()
    closing.append(backend_of(gguf, trials))
    assert 6 < time.monotonic() - began < 60
    (remark,) = closing[0].remarks
    assert "it did not end within 6" in remark
    assert not trials.exists(), "the machine may have been busy"


@pytest.mark.parametrize("obstacle", ["a file", "full"])
def test_a_finding_that_cannot_be_kept_lasts_as_long_as_the_process(
    gguf: Path,
    tmp_path: Path,
    crashes: Crashes,
    closing: list[Any],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    obstacle: str,
) -> None:
    folder = tmp_path / "in the way" / "trials"
    if obstacle == "a file":
        folder.parent.write_text("not a folder")
    else:
        monkeypatch.setattr(files, "_write_new", full)
    crashes.when("extra_buffers", signal.SIGSEGV)
    for _ in range(2):
        closing.append(backend_of(gguf, folder))
        assert crashes.children == 2
        assert "without repacked weights" in closing[-1].remarks[0]
    assert caplog.text.count("found out cannot be kept") == 1


def full(_path: Path, _data: bytes) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_record_of_another_machine_is_not_used(
    gguf: Path, tmp_path: Path, trials: Path, crashes: Crashes, closing: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Moved with the project's folder to another Mac, or there before a new driver of the GPU."""
    crashes.when("False", signal.SIGSEGV)
    sysctl, driver = tmp_path / "sysctl", tmp_path / "nvidia"
    monkeypatch.setattr(trials_module, "_CPU_INFO", tmp_path / "none")
    monkeypatch.setattr(trials_module, "_SYSCTL", (str(sysctl), "-n", "machdep.cpu.brand_string"))
    monkeypatch.setattr(trials_module, "_NVIDIA_DRIVER", driver)
    assert trials_module.this_cpu().startswith(platform.machine())
    for number, (cpu, version) in enumerate([("M1", "550.1"), ("M1", "550.1"), ("M3 Max", "550.1"), ("M1", "560.2")]):
        sysctl.write_text(f'#!/bin/sh\n[ "$*" = "-n machdep.cpu.brand_string" ] && echo "Apple {cpu}"\n')
        sysctl.chmod(0o700)
        driver.write_text(f"NVRM version: {version}\nGCC version: 12\n")
        assert trials_module.this_cpu() == f"Apple {cpu}"
        closing.append(backend_of(gguf, trials))
        assert crashes.children == [1, 1, 2, 3][number]


def test_where_no_child_process_can_be_started_no_chat_template_is_rendered(
    gguf: Path, trials: Path, crashes: Crashes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for python in ("", "/nowhere/python"):
        monkeypatch.setattr(sys, "executable", python)
        with pytest.raises(BackendError, match="no child process can be started for its chat template: "):
            backend_of(gguf, trials)
    assert (crashes.children, trials.exists()) == (0, False)


def test_without_a_trial_the_usual_kernels_are_used(
    gguf: Path, trials: Path, crashes: Crashes, closing: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(*arguments: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(trials_module, "start_child", refusing)
    closing.append(backend_of(gguf, trials))
    assert (closing[0].remarks, crashes.children, trials.exists()) == ((), 0, False)
    assert answer(closing[0], ask("tell", max_tokens=4)).error is None


def test_much_that_a_child_writes_and_odd_paths_are_no_problem(
    gguf: Path,
    tmp_path: Path,
    trials: Path,
    crashes: Crashes,
    closing: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Megabytes that are no text, on both streams; and a file whose name is not UTF-8."""
    folder = tmp_path / "talkative"
    folder.mkdir()
    (folder / "talk.py").write_text(
        "import os, sys\n"
        'if "trial_decode" in " ".join(sys.orig_argv):\n'
        '    os.write(1, b"{\\"answer\\": 5}\\n[1]\\n\\xff\\n")\n'
        "    for stream in (1, 2):\n"
        '        for _ in range(64): os.write(stream, b"\\xff\\x00x" * 30_000)\n'
    )
    crashes.importing("talk")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.environ["PYTHONPATH"], "", "no such folder", str(folder)]))
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/a b \xc3\xa4 \xff.gguf"))
    odd.symlink_to(gguf)
    crashes.when("extra_buffers and n_tokens == 1", signal.SIGSEGV)
    closing.append(backend_of(odd, trials))
    assert "while decoding one token" in closing[0].remarks[0]
    assert answer(closing[0], ask("tell", max_tokens=4)).error is None


def test_a_library_that_crashes_at_decoding_weights_says_so(smollm2: Path, tmp_path: Path, crashes: Crashes) -> None:
    crashes.when("quantising", signal.SIGSEGV)
    with pytest.raises(
        BackendError, match=r"llama\.cpp was ended by SIGSEGV .* while writing its weights out in 16 bits"
    ):
        decoded_weights(smollm2, tmp_path / "decoded")
    assert not list((tmp_path / "decoded").iterdir())


def crashing_server(folder: Path, condition: str) -> str:
    """A program that is llama-server unless the shell's condition on its arguments holds; then it is killed."""
    script = folder / "llama-server"
    script.write_text(
        f'#!/bin/sh\ncase " $* " in\n{condition}) echo "ggml: about to crash" >&2; kill -SEGV $$;;\nesac\n'
        f'exec "{require_llama_server()}" "$@"\n'
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return str(script)


def test_llama_server_falls_back_too(gguf: Path, tmp_path: Path, trials: Path, closing: list[Any]) -> None:
    # Crashes unless told --no-repack.
    binary = crashing_server(tmp_path, '*" --no-repack "*) ;;\n*')
    for _ in range(2):
        closing.append(LlamaServerBackend(gguf, "tiny", server_settings(binary=binary), trials=trials))
        (remark,) = closing[-1].remarks
        assert remark.startswith(f"llama-server runs {EXTRA}: in a trial as usual, {gguf}, it was ended by SIGSEGV")
        assert closing[-1].identity().backend_version.endswith(f", {EXTRA}")
        assert answer(closing[-1], ask("tell", max_tokens=4)).error is None
        assert len(list(trials.iterdir())) == 1


def test_a_llama_server_that_always_crashes_shows_its_log(gguf: Path, tmp_path: Path, trials: Path) -> None:
    with pytest.raises(BackendError) as error:
        LlamaServerBackend(gguf, "tiny", server_settings(binary=crashing_server(tmp_path, "*")), trials=trials)
    text = str(error.value)
    assert "llama-server crashes with this model on this machine" in text
    assert "as usual: it was ended by SIGSEGV (Segmentation fault) while getting ready" in text
    assert "ggml: about to crash" in text
    assert "Set the backend's binary to another build" in text


def test_mlx_that_ends_its_process_says_so(tmp_path: Path, trials: Path, crashes: Crashes) -> None:
    folder = tmp_path / "mlx"
    write_model(folder)
    crashes.in_mlx()
    with pytest.raises(
        BackendError, match=r"mlx was ended by SIGABRT .* while loading the weights, in a child process \(mlx "
    ):
        MlxBackend(str(folder), "tiny", MlxSettings(), trials=trials)

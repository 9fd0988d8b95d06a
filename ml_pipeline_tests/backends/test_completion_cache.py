from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from ml_pipeline.backends.completion_cache import CachedBackend, CompletionCache
from ml_pipeline.backends.interface import Completion, CompletionRequest
from ml_pipeline.backends.llama_cpp import LlamaCppBackend
from ml_pipeline.errors import StoreError
from ml_pipeline_tests.backends.requests import QUESTIONS, answer, answers, ask
from ml_pipeline_tests.backends.test_llama_cpp_adapters import write_adapter

SAMPLE = Completion("r", "prompt", "text", 3, 2, "stop", 0.5)


class Watched(LlamaCppBackend):
    """The real backend, noting what it is asked to run."""

    asked: list[str]

    def complete(
        self, requests: Sequence[CompletionRequest], *, cancelled: Callable[[], bool] = lambda: False
    ) -> Iterator[Completion]:
        self.asked.extend(request.id for request in requests)
        return super().complete(requests, cancelled=cancelled)


@pytest.fixture(scope="module")
def watched(smollm2: Path) -> Iterator[Watched]:
    made = Watched(smollm2, "smollm2-135m", sequences=4, context_tokens=256, threads=1)
    yield made
    made.close()


@pytest.fixture
def cached(watched: Watched, tmp_path: Path) -> CachedBackend:
    watched.asked = []
    return CachedBackend(watched, CompletionCache(tmp_path / "cache.sqlite"))


def test_a_finished_answer_is_not_run_again(cached: CachedBackend, watched: Watched) -> None:
    first = answers(cached, [ask(question, max_tokens=4) for question in QUESTIONS[:3]])
    assert len(watched.asked) == 3
    done = list(cached.complete([ask(question, max_tokens=4) for question in (QUESTIONS[3], *QUESTIONS[:3])]))
    assert watched.asked[3:] == [QUESTIONS[3]]
    # What is known comes first.
    assert [completion.cached for completion in done] == [True, True, True, False]
    for completion in done[:3]:
        assert completion == replace(first[completion.request_id], cached=True)


@pytest.mark.parametrize(
    "other",
    [
        ask("Hi!", "a"),
        ask("Hi", "a", max_tokens=5),
        ask("Hi", "a", repeat_penalty=1.1),
        ask("Hi", "a", schema={"type": "null"}),
    ],
)
def test_another_question_is_a_miss(cached: CachedBackend, watched: Watched, other: CompletionRequest) -> None:
    answer(cached, ask("Hi", "a"))
    assert not answer(cached, other).cached
    assert len(watched.asked) == 2


def test_the_id_counts_only_where_it_is_part_of_the_seed(cached: CachedBackend) -> None:
    answer(cached, ask("Hi", "a", max_tokens=4))
    assert answer(cached, ask("Hi", "b", max_tokens=4)).cached
    answer(cached, ask("Hi", "a", max_tokens=4, temperature=0.5))
    assert answer(cached, ask("Hi", "a", max_tokens=4, temperature=0.5)).cached
    assert not answer(cached, ask("Hi", "b", max_tokens=4, temperature=0.5)).cached


def test_the_adapter_is_part_of_the_key(cached: CachedBackend, tmp_path: Path) -> None:
    answer(cached, ask("Hi", max_tokens=4))
    cached.use_adapter(write_adapter(tmp_path / "a.gguf"))
    assert not answer(cached, ask("Hi", max_tokens=4)).cached
    cached.use_adapter(None)
    assert answer(cached, ask("Hi", max_tokens=4)).cached


def test_twins_of_one_call_are_run_once(cached: CachedBackend, watched: Watched) -> None:
    done = answers(cached, [ask("Hi", name, max_tokens=4) for name in "abc"])
    assert watched.asked == ["a"]
    assert {name: completion.cached for name, completion in done.items()} == {"a": False, "b": True, "c": True}


def test_errors_and_cancelled_answers_are_not_kept(cached: CachedBackend, watched: Watched) -> None:
    for _ in range(2):
        assert answer(cached, ask("hi", max_tokens=0)).finish_reason == "error"
        (done,) = cached.complete([ask("hello")], cancelled=lambda: True)
        assert done.finish_reason == "cancelled"
    assert len(watched.asked) == 4


def test_closing_early_frees_the_backend(cached: CachedBackend) -> None:
    running = cached.complete([ask(question, max_tokens=4) for question in QUESTIONS])
    next(running)
    running.close()  # type: ignore[attr-defined]
    assert answer(cached, ask("Hi", max_tokens=2)).text


def test_a_damaged_file_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "cache.sqlite"
    path.write_bytes(b"this is no database " * 500)
    with caplog.at_level(logging.WARNING):
        cache = CompletionCache(path)
    assert "set aside as cache.sqlite.damaged-" in caplog.text
    assert len(list(tmp_path.glob("cache.sqlite.damaged-*"))) == 1
    cache.put("k", SAMPLE)
    assert cache.get(["k"]) == {"k": SAMPLE}
    cache.close()


def test_damage_found_later_is_set_aside_too(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    cache = CompletionCache(path)
    for number in range(2000):
        cache.put(f"{number:064}", SAMPLE)
    cache.close()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 8192))
    cache = CompletionCache(path)
    assert cache.get([f"{number:064}" for number in range(2000)]) == {}
    cache.put("k", SAMPLE)
    assert cache.get(["k"]) == {"k": SAMPLE}
    cache.close()


def test_a_path_that_cannot_be_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="Check the path and permissions"):
        CompletionCache(tmp_path / "file" / "cache.sqlite")


def test_many_keys_in_one_lookup(tmp_path: Path) -> None:
    cache = CompletionCache(tmp_path / "c.sqlite")
    cache.put("3", SAMPLE)
    assert cache.get([str(number) for number in range(5000)]) == {"3": SAMPLE}
    cache.close()


WRITER = """
import sys
from pathlib import Path
from ml_pipeline.backends.completion_cache import CompletionCache
from ml_pipeline.backends.interface import Completion
cache = CompletionCache(Path(sys.argv[1]))
for number in range(300):
    cache.put(f"{sys.argv[2]}{number}", Completion("r", "p", "t", 1, 1, "stop", 0.1))
"""


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), name]) for name in "ab"]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0]
    cache = CompletionCache(path)
    assert len(cache.get([f"{name}{number}" for name in "ab" for number in range(300)])) == 600
    cache.close()


def _open_a_hundred(folder: Path, together: Barrier) -> None:
    for number in range(100):
        together.wait(timeout=60)
        CompletionCache(folder / f"{number}.sqlite").close()


def test_two_processes_open_a_new_file_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(2)
    openers = [context.Process(target=_open_a_hundred, args=(tmp_path, together)) for _ in range(2)]
    for opener in openers:
        opener.start()
    for opener in openers:
        opener.join(timeout=120)
    assert [opener.exitcode for opener in openers] == [0, 0]


RUNNER = """
import sys
from pathlib import Path
from ml_pipeline.backends.completion_cache import CachedBackend, CompletionCache
from ml_pipeline.backends.llama_cpp import LlamaCppBackend
from ml_pipeline_tests.backends.requests import QUESTIONS, ask
inner = LlamaCppBackend(Path(sys.argv[1]), "smollm2-135m", sequences=2, context_tokens=256, threads=1)
backend = CachedBackend(inner, CompletionCache(Path(sys.argv[2])))
for completion in backend.complete([ask(question, max_tokens=16) for question in QUESTIONS]):
    print(completion.request_id, completion.cached, sep="|", flush=True)
"""


def test_a_killed_run_repeats_no_finished_prompt(smollm2: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", RUNNER, str(smollm2), str(tmp_path / "c.sqlite")]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    finished = [first.stdout.readline().split("|")[0] for _ in range(2)]
    os.kill(first.pid, signal.SIGKILL)
    # More may have been printed before the signal came.
    finished += [line.split("|")[0] for line in first.stdout.read().splitlines()]
    first.wait()
    time.sleep(0.1)
    second = subprocess.run(command, capture_output=True, text=True, check=True, timeout=280)
    repeated = dict(line.split("|") for line in second.stdout.splitlines())
    assert sorted(repeated) == sorted(QUESTIONS)
    assert all(repeated[question] == "True" for question in finished)

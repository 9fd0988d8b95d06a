"""What backends that run a model in this process share: requests become jobs, and jobs are run together."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from typing import Generic, TypeVar

from ml_pipeline.backends.answer_text import AnswerText
from ml_pipeline.backends.interface import Completion, CompletionRequest, FinishReason, Piece
from ml_pipeline.backends.one_at_a_time import OneAtATime
from ml_pipeline.errors import BackendError


class BatchedJob:
    """A request on its way: its prompt, how many tokens that has, and the answer so far."""

    def __init__(self, request: CompletionRequest, prompt: str, prompt_tokens: int) -> None:
        self.request = request
        self.prompt = prompt
        self.answer = AnswerText(request.options.stop)
        self.answer_tokens = 0
        self._prompt_tokens = prompt_tokens
        self._log_probabilities: list[float] = []
        self._started: float | None = None

    def completion(self, reason: FinishReason, error: str | None = None) -> Completion:
        """Close the job with what it has."""
        seconds = 0.0 if self._started is None else time.perf_counter() - self._started
        return Completion(
            request_id=self.request.id,
            prompt=self.prompt,
            text=self.answer.text,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self.answer_tokens,
            finish_reason=reason,
            seconds=seconds,
            error=error,
            log_probabilities=tuple(self._log_probabilities) if self.request.log_probabilities else None,
        )


JobType = TypeVar("JobType", bound=BatchedJob)


class BatchedBackend(ABC, Generic[JobType]):
    """The parts of `Backend` that answer, over a batch of jobs. One answer iterator at a time."""

    def __init__(self) -> None:
        self._calls = OneAtATime()

    @property
    def remarks(self) -> tuple[str, ...]:
        """None here. See `Backend.remarks`."""
        return ()

    def complete(
        self, requests: Sequence[CompletionRequest], *, cancelled: Callable[[], bool] = lambda: False
    ) -> Iterator[Completion]:
        """Answer all requests, yielding each as it ends. See `Backend.complete`.

        What a single request does wrong comes back as its completion's error. Closing the iterator, or an exception
        inside it (Ctrl-C too), frees what it holds and leaves the backend ready.
        """
        if len({request.id for request in requests}) < len(requests):
            raise BackendError("complete: two requests share an id. Give each request of a batch its own.")
        with self._calls.during("complete"):
            jobs: list[JobType] = []
            try:
                for request in requests:
                    job = self._prepare(request)
                    if isinstance(job, Completion):
                        yield job
                    else:
                        jobs.append(job)
                with closing(self._run(jobs, cancelled)) as steps:
                    for ended in steps:
                        yield from ended
            finally:
                for job in jobs:
                    self._release(job)

    def stream(self, request: CompletionRequest) -> Iterator[Piece]:
        """Yield the answer piece by piece; text that may begin a stop string is held back until that is known."""
        with self._calls.during("stream"):
            job = self._prepare(request)
            if isinstance(job, Completion):
                yield Piece("", job)
                return
            with closing(self._run([job], lambda: False)) as steps:
                for ended in steps:
                    piece = job.answer.take(ended=bool(ended))
                    if ended:
                        yield Piece(piece, ended[0])
                    elif piece:
                        yield Piece(piece)

    @abstractmethod
    def _prepare(self, request: CompletionRequest) -> JobType | Completion:
        """Make the job of a request, or the completion that says why it cannot be one."""

    @abstractmethod
    def _run(self, jobs: Sequence[JobType], cancelled: Callable[[], bool]) -> Generator[list[Completion], None, None]:
        """Yield, after each step, what ended in it (mostly nothing); at the end every job has ended once."""

    def _release(self, job: JobType) -> None:
        """Free what a job holds. Again does nothing."""

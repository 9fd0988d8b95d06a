"""Continuous batching by mlx-lm: each step adds a token to every running answer and reads a piece of new prompts."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Any

import mlx.core as mx
from mlx_lm.generate import BatchGenerator

from ml_pipeline.backends.interface import Completion
from ml_pipeline.backends.mlx.job import Job
from ml_pipeline.backends.mlx.model import LoadedModel
from ml_pipeline.backends.mlx.prefix import Prefix, read_prefix
from ml_pipeline.errors import BackendError


def run(
    model: LoadedModel, jobs: Sequence[Job], cancelled: Callable[[], bool]
) -> Generator[list[Completion], None, None]:
    """Yield, after each step, what ended in it (mostly nothing); at the end every job has ended once.

    Closing the iterator early frees all that it holds.
    """
    batch = _Batch(model, jobs)
    try:
        while batch.unfinished:
            if cancelled():
                yield [job.completion("cancelled", "cancelled by the caller") for job in batch.unfinished]
                return
            yield batch.step()
    finally:
        batch.close()


class _Batch:
    """The jobs of one call. A job joins mlx-lm's batch when a place falls free and leaves it when it ends."""

    def __init__(self, model: LoadedModel, jobs: Sequence[Job]) -> None:
        self._model = model
        self._waiting = deque(jobs)
        self._admitted: list[Job] = []
        self._running: dict[int, Job] = {}
        self._prefix: Prefix | None = None
        self._generator: Any = None

    @property
    def unfinished(self) -> list[Job]:
        """What runs, then what waits."""
        return [*self._running.values(), *self._admitted, *self._waiting]

    def step(self) -> list[Completion]:
        """Do one step, and return what ended in it."""
        try:
            self._admit()
            _, answers = self._generator.next()
            return self._take(answers)
        # Out of memory is a RuntimeError here, a model that cannot be batched a ValueError: those who wait may fare
        # better in a new batch.
        except Exception as error:
            lost = [*self._running.values(), *self._admitted]
            self.close()
            return [job.completion("error", f"mlx-lm failed: {type(error).__name__}: {error}") for job in lost]

    def close(self) -> None:
        """Free the running batch, with the wired memory that mlx-lm asks for as long as it has one."""
        if self._generator is not None:
            self._generator.close()
        self._generator = self._prefix = None
        self._running, self._admitted = {}, []
        mx.clear_cache()

    def _admit(self) -> None:
        settings = self._model.settings
        free = settings.sequences - len(self._running)
        self._admitted = [self._waiting.popleft() for _ in range(min(free, len(self._waiting)))]
        if not self._admitted:
            return
        if self._generator is None:
            self._prefix = read_prefix(self._model, [job.tokens for job in (*self._admitted, *self._waiting)])
            self._generator = BatchGenerator(
                self._model,
                stop_tokens=[[token] for token in self._model.tokenizer.eos_token_ids],
                completion_batch_size=settings.sequences,
                prefill_batch_size=settings.sequences,
                prefill_step_size=settings.prefill_tokens,
            )
        assert self._prefix is not None
        for job in self._admitted:
            job.start()
        uids = self._generator.insert(
            [job.tokens[len(self._prefix.tokens) :] for job in self._admitted],
            max_tokens=[job.most_tokens for job in self._admitted],
            caches=[self._prefix.cache_for(self._model) for _ in self._admitted],
            samplers=[job.choice.sampler for job in self._admitted],
            logits_processors=[job.choice.processors for job in self._admitted],
        )
        self._running.update(zip(uids, self._admitted, strict=True))
        self._admitted = []

    def _take(self, answers: Sequence[Any]) -> list[Completion]:
        """Give each job its token, and take those out of the batch that end by what mlx-lm does not know."""
        if not answers:
            return []
        chosen = [self._running[answer.uid].choice.log_probability(answer.token, answer.logprobs) for answer in answers]
        log_probabilities: Any = mx.stack(chosen).tolist()
        ended, removed = [], []
        for answer, log_probability in zip(answers, log_probabilities, strict=True):
            job = self._running[answer.uid]
            reason, error = None, None
            try:
                reason = job.add(answer.token, log_probability, answer.finish_reason)
            except BackendError as refusal:
                reason, error = "error", str(refusal)
            if reason is not None:
                del self._running[answer.uid]
                ended.append(job.completion(reason, error))
                if answer.finish_reason is None:
                    removed.append(answer.uid)
        self._generator.remove(removed)
        return ended

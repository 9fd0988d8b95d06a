"""Continuous batching: each step decodes one token of every running answer together with pieces of new prompts."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable

from ml_pipeline.backends.interface import Completion
from ml_pipeline.backends.llama_cpp.batch import TokenBatch
from ml_pipeline.backends.llama_cpp.job import Job
from ml_pipeline.backends.llama_cpp.memory import SequenceMemory
from ml_pipeline.backends.llama_cpp.model import LoadedModel
from ml_pipeline.backends.token_prefixes import shared_prefix
from ml_pipeline.errors import BackendError


class Scheduler:
    """Runs jobs over the model's sequences. A job takes a sequence when one falls free and keeps it until it ends."""

    def __init__(self, model: LoadedModel, memory: SequenceMemory, batch: TokenBatch) -> None:
        self._model = model
        self._memory = memory
        self._batch = batch
        self._running: dict[int, Job] = {}
        self._pending: deque[Job] = deque()
        self._spoilt = False

    def run(self, jobs: Iterable[Job], cancelled: Callable[[], bool]) -> Generator[list[Completion], None, None]:
        """Yield, after each step, what ended in it (mostly nothing); at the end every job has ended once.

        Closing the iterator early frees all that it holds.
        """
        self._pending = deque(jobs)
        self._running = {}
        self._spoilt = False
        self._memory.clear()
        try:
            while self._pending or self._running:
                if cancelled():
                    yield self._end_all("cancelled by the caller")
                    return
                self._admit()
                if not self._pending:
                    self._close_gaps()
                yield self._step()
        finally:
            for job in (*self._running.values(), *self._pending):
                job.sampler.close()
            self._running, self._pending = {}, deque()
            self._memory.clear(zero=self._spoilt)

    def _step(self) -> list[Completion]:
        ended, outputs = self._fill_batch()
        if self._batch.size == 0:
            return ended
        try:
            self._batch.decode()
        except BackendError as error:
            ended.extend(self._end(sequence, str(error)) for sequence in list(self._running))
            self._memory.clear()
            return ended
        rows = self._model.logits(self._batch.rows) if outputs else ()
        for row, (sequence, index) in zip(rows, outputs, strict=True):
            job = self._running[sequence]
            try:
                reason = job.choose(row, index, self._model)
            except BackendError as error:
                self._spoilt = True
                ended.append(self._end(sequence, str(error)))
                continue
            if reason is not None:
                del self._running[sequence]
                ended.append(job.completion(reason))
        return ended

    def _fill_batch(self) -> tuple[list[Completion], list[tuple[int, int]]]:
        """Fill the batch from the running jobs; returns the jobs that ran out of context, and who gets which output."""
        ended: list[Completion] = []
        outputs: list[tuple[int, int]] = []
        self._batch.clear()
        # Every running answer has a place first; prompts share what is left.
        prompt_room = self._batch.room - sum(job.generating for job in self._running.values())
        for sequence in sorted(self._running):
            job = self._running[sequence]
            decoded = self._memory.length(sequence)
            if decoded >= self._model.context_tokens:
                ended.append(self._end(sequence, self._context_full(job)))
                continue
            tokens = job.waiting_tokens(decoded, prompt_room)
            if not job.generating:
                prompt_room -= len(tokens)
            if len(tokens) == 0:
                continue
            whole = job.generating or decoded + len(tokens) == len(job.tokens)
            index = self._batch.add(sequence, decoded, tokens, wanted_rows=int(whole))
            self._memory.append(sequence, tokens)
            if whole:
                outputs.append((sequence, index))
        return ended, outputs

    def _admit(self) -> None:
        """Give free sequences to waiting jobs, first come first served but for those who wait for a shared prefix."""
        free = [sequence for sequence in range(self._model.sequences) if sequence not in self._running]
        waiting: list[Job] = []
        # Looking far ahead for a job with another prefix would cost more than the places it fills.
        for _ in range(min(len(self._pending), 2 * self._model.sequences)):
            if not free:
                break
            job = self._pending.popleft()
            if self._prefix_is_coming(job):
                waiting.append(job)
                continue
            sequence = max(free, key=lambda place: (self._memory.shared(place, job.tokens), -place))
            free.remove(sequence)
            self._memory.start(sequence, job.tokens)
            self._running[sequence] = job
        self._pending.extendleft(reversed(waiting))

    def _prefix_is_coming(self, job: Job) -> bool:
        """Whether a prompt being decoded right now will soon save this job much more than what is in memory already."""
        coming = [
            shared_prefix(job.tokens[:-1], other.tokens) for other in self._running.values() if not other.generating
        ]
        if not coming:
            return False
        _, held = self._memory.best_shared(job.tokens)
        return max(coming) - held >= self._memory.min_shared_prefix

    def _close_gaps(self) -> None:
        # llama.cpp decodes only neighbouring sequences together: a gap splits the batch and costs up to twice the time.
        while self._running and (last := max(self._running)) >= len(self._running):
            gap = next(sequence for sequence in range(last) if sequence not in self._running)
            self._memory.move(last, gap)
            self._running[gap] = self._running.pop(last)

    def _end(self, sequence: int, error: str) -> Completion:
        return self._running.pop(sequence).completion("error", error)

    def _end_all(self, why: str) -> list[Completion]:
        jobs = [*self._running.values(), *self._pending]
        self._running, self._pending = {}, deque()
        return [job.completion("cancelled", why) for job in jobs]

    def _context_full(self, job: Job) -> str:
        return (
            f"the context of {self._model.context_tokens} tokens is full after a prompt of {len(job.tokens)} and "
            f"{job.answer_tokens} answer tokens. Raise context_tokens or lower max_tokens."
        )

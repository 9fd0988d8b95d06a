"""Which of llama.cpp's kernels are used: all of them, or fewer where those crash on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from ml_pipeline.backends.trials import Death, TrialRecords, this_cpu, this_system
from ml_pipeline.errors import BackendError


@dataclass(frozen=True, slots=True)
class Kernels:
    """The options of llama.cpp that choose kernels, and by which a crash can be avoided.

    `extra_buffers` has it repack weights for this CPU (AMX, AVX-512, NEON); `flash_attention` lets it choose that
    where it can. `threads` is the number that compute.
    """

    threads: int
    extra_buffers: bool = True
    flash_attention: bool = True

    def safer(self) -> Iterator[Kernels]:
        """These kernels, then fewer and fewer of them: what is suspected first goes first."""
        plain = replace(self, extra_buffers=False)
        plainer = replace(plain, flash_attention=False)
        fewer = [replace(plainer, threads=threads) for threads in (max(1, self.threads // 2), 1)]
        yield from dict.fromkeys([self, plain, plainer, *fewer])

    def reductions(self, usual: Kernels) -> str:
        """What of llama.cpp's kernels, and of the usual number of threads, is left out, in words; "" for nothing."""
        words = []
        if not self.extra_buffers:
            words.append("without repacked weights (extra buffers)")
        if not self.flash_attention:
            words.append("without flash attention")
        if self.threads != usual.threads:
            words.append(f"with {self.threads} of {usual.threads} threads")
        return ", ".join(words)


@dataclass(frozen=True, slots=True)
class ProvenKernels:
    """Kernels that did not crash in a trial. `reductions` says what is left out of all that there are; where a crash is
    the reason, `remark` says so in a sentence."""

    kernels: Kernels
    reductions: str = ""
    remark: str = ""

    @property
    def version_suffix(self) -> str:
        """What a backend's version says of them: other kernels round otherwise, so their answers are others."""
        return f", {self.reductions}" if self.reductions else ""

    @property
    def remarks(self) -> tuple[str, ...]:
        """The sentence, if there is one."""
        return (self.remark,) if self.remark else ()


@dataclass(frozen=True, slots=True)
class KernelTrial:
    """What is tried out: `program` runs `model`. `build` names its version and place, `ways_out` says what a user can
    do where it always crashes, and `depends_on` is all that decides which kernels run, this machine apart."""

    program: str
    model: str
    build: str
    ways_out: str
    depends_on: Mapping[str, Any]

    def proven(
        self, usual: Kernels, records: TrialRecords, try_out: Callable[[Kernels], Death | str | None]
    ) -> ProvenKernels:
        """The usual kernels, or the first of the safer ones that work: from `records`, or tried out now and kept there.

        `try_out` returns None where they work, else how the program died or why it refuses them. Where it refuses the
        usual ones nothing is found out: whoever loads the model next hears why.

        Raises:
            BackendError: it crashes in every way; the message names the signal, the build, and what was tried. Or the
                trial itself was told to end.
        """
        circumstances = {**self.depends_on, "build": self.build, "cpu": this_cpu(), "usual": asdict(usual)}
        circumstances["system"] = this_system()
        if (found := records.get(circumstances)) and (kept := _from_record(found, usual)):
            return kept
        failed: list[tuple[Kernels, Death | str]] = []
        for kernels in usual.safer():
            reason = try_out(kernels)
            if isinstance(reason, Death) and reason.was_ordered:
                raise BackendError(f"{self.model}: the trial of {self.program} {reason}, from outside. Start again.")
            if isinstance(reason, str) and not failed:
                return ProvenKernels(usual, usual.reductions(usual))
            if reason is None:
                proven = self._explained(kernels, usual, failed)
                # What failed for want of memory or time may work tomorrow.
                if not any(isinstance(why, Death) and why.may_pass for _, why in failed):
                    records.keep(circumstances, asdict(proven))
                return proven
            failed.append((kernels, reason))
        raise self._no_way(usual, failed)

    def _explained(self, kernels: Kernels, usual: Kernels, failed: list[tuple[Kernels, Death | str]]) -> ProvenKernels:
        reductions = kernels.reductions(usual)
        if not failed:
            return ProvenKernels(kernels, reductions)
        where = f"{self.build}, on {this_cpu()}"
        remark = f"{self.program} runs {reductions}: in a trial as usual, {self.model}, it {failed[0][1]}. {where}."
        return ProvenKernels(kernels, reductions, remark)

    def _no_way(self, usual: Kernels, failed: list[tuple[Kernels, Death | str]]) -> BackendError:
        remedy = self.ways_out
        if all(why.looks_like_memory for _, why in failed if isinstance(why, Death)):
            remedy = (
                "The system ends processes so when memory runs out. Lower sequences or context_tokens in "
                "pipeline.yaml, take a smaller quantisation, or close what else needs memory."
            )
        return BackendError.from_problems(
            f"{self.model}: {self.program} crashes with this model on this machine ({self.build}, on {this_cpu()}), in "
            "every way that was tried",
            [_line(kernels.reductions(usual) or "as usual", why) for kernels, why in failed],
            remedy,
        )


def _line(way: str, why: Death | str) -> str:
    if isinstance(why, str):
        return f"{way}: {why}"
    last_lines = f". Its last lines: {' | '.join(why.last_lines)}" if why.last_lines else ""
    return f"{way}: it {why}{last_lines}"


def _from_record(record: Mapping[str, Any], usual: Kernels) -> ProvenKernels | None:
    """Out of what was kept; None where that is not one of the ways that there are."""
    for kernels in usual.safer():
        proven = ProvenKernels(kernels, kernels.reductions(usual), str(record.get("remark", "")))
        if asdict(proven) == record:
            return proven
    return None

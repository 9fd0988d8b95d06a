"""Scoring runs killed at any moment between writing and acknowledgement: no row lost, none doubled, in any store."""

from __future__ import annotations

import random
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from ml_pipeline_tests.influxd import Influxd
from ml_pipeline_tests.stores.processes import forking
from ml_pipeline_tests.stores.rehearsal import Lab, Work, lab_in, publish, score
from ml_pipeline_tests.stores.rehearsal_checks import assert_on_the_server, assert_stored, assert_whole
from ml_pipeline_tests.stores.steps import kill_at, watch

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
SEED = 6
MOMENTS, KILLS_A_WORK = 200, 5


def run(lab: Lab, works: Sequence[Work], before: Callable[[], object], publishing: bool = False) -> None:
    """What the process does that is killed."""
    before()
    failed = score(lab, works)
    assert not failed, failed
    if publishing:
        publish(lab)


def killed_after(seconds: float, lab: Lab, works: Sequence[Work]) -> bool:
    """Run it in a process of its own and kill that after some time; whether it was going on then."""
    started, starting = forking().Pipe(duplex=False)
    process = forking().Process(target=run, args=(lab, works, partial(starting.send, None)))
    process.start()
    assert started.poll(60)
    process.join(seconds)
    process.kill()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def versions(works: Sequence[Work]) -> dict[str, list[Work]]:
    """The works by the partition that they are versions of."""
    found: dict[str, list[Work]] = {}
    for work in works:
        found.setdefault(work.key, []).append(work)
    return found


def test_kills_at_random_moments_lose_and_double_nothing(
    influxd: Influxd, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each work is killed some times, every time somewhere else, and then run to its end; every second one is that of
    a checkpoint that was overwritten since it was scored."""
    chance, lab = random.Random(SEED), lab_in(tmp_path, influxd.url)
    works = [Work("crash", number // 2, version=1 + number % 2) for number in range(MOMENTS // KILLS_A_WORK)]
    span, depths, began = usual_span(tmp_path / "usual", influxd), Counter[int](), time.monotonic()
    for number, work in enumerate(works):
        known = versions(works[number - number % 2 : number + 1])
        begun = lab.records.read_bytes() if number else b""
        for _ in range(KILLS_A_WORK):
            depths[killed_within(span, chance, lab, work, begun)] += 1
            assert_whole(lab, known, influxd)
        assert score(lab, [work]) == {}
        assert_whole(lab, {work.key: [work]}, influxd)
    final = [work for work in works if work.version == 2]
    assert_stored(lab, final)
    assert_on_the_server(lab, influxd, final)
    with capsys.disabled():
        print(
            f"\n{depths.total()} kills within {span:.2f} s, after {min(depths)} to {max(depths)} records, in "
            f"{time.monotonic() - began:.0f} s with the runs after them and the checks"
        )


def usual_span(folder: Path, influxd: Influxd) -> float:
    """How long a run takes that nobody kills, in s."""
    lab, spans = lab_in(folder, influxd.url), []
    for number in range(5):
        began = time.monotonic()
        assert score(lab, [Work("usual", number)]) == {}
        spans.append(time.monotonic() - began)
    influxd.clear()
    return statistics.median(spans)


def killed_within(span: float, chance: random.Random, lab: Lab, work: Work, begun: bytes) -> int:
    """Kill the work at a random moment; return how many records it had made. One that came to its end is begun anew,
    with the records from before it."""
    while True:
        if lab.records.exists() and not lab.unfinished([work]):
            lab.records.write_bytes(begun)
        before = len(lab.recorded())
        if killed_after(chance.uniform(0, span), lab, [work]):
            return len(lab.recorded()) - before


def recorded_steps(lab: Lab, works: Sequence[Work]) -> Counter[str]:
    """Every step of a run that comes to its end, and how often it is taken."""
    steps: Counter[str] = Counter()
    trace = sys.gettrace()
    try:
        run(lab, works, partial(watch, lambda name: steps.update([name])), publishing=True)
    finally:
        sys.settrace(trace)
    return steps


def test_kills_before_every_step_lose_and_double_nothing(
    influxd: Influxd, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From an empty folder, so that making the stores is among the steps; the second work replaces the first."""
    chance, works = random.Random(SEED), [Work("crash", 1), Work("crash", 1, version=2)]
    steps = recorded_steps(lab_in(tmp_path / "whole", influxd.url), works)
    touched = {step.partition(".")[0] for step in steps}
    assert touched >= {"files", "disk_folder", "duckdb", "duckdb_files", "influx_buffer"}
    began = time.monotonic()
    for number, (step, times) in enumerate(steps.items()):
        influxd.clear()
        lab = lab_in(tmp_path / f"{number}", influxd.url)
        before = partial(kill_at, step, chance.randint(1, times))
        process = forking().Process(target=run, args=(lab, works, before, True))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL, step
        assert_whole(lab, versions(works), influxd)
        # Publishing takes longer than the rest: it is done again where the kill was in it.
        run(lab, works, lambda: None, publishing=not lab.unfinished(works))
        assert_stored(lab, works[1:])
        assert_on_the_server(lab, influxd, works[1:])
    with capsys.disabled():
        print(f"\nkills before {len(steps)} steps in {time.monotonic() - began:.0f} s:", *steps, sep="\n  ")

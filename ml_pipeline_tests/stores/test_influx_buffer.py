from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import ml_pipeline.stores.influx_buffer as module
from ml_pipeline.errors import StoreError, StoreFullError
from ml_pipeline.stores.influx_batches import Pending
from ml_pipeline.stores.influx_buffer import InfluxBuffer
from ml_pipeline.stores.influx_sending import Answer, BoundedSender
from ml_pipeline_tests.stores.processes import background_python, run_python

WRITTEN = Answer("written")


class Recorder:
    """A server that remembers what it was sent and answers as it is told to."""

    def __init__(self, answer: Callable[[Sequence[str]], Answer] = lambda _: WRITTEN) -> None:
        self.answer = answer
        self.requests: list[list[str]] = []
        self.taken: list[str] = []

    def send(self, lines: Sequence[str]) -> Answer:
        self.requests.append(list(lines))
        answer = self.answer(lines)
        if answer.kind == "written":
            self.taken += lines
        return answer


@pytest.fixture
def buffer(tmp_path: Path) -> InfluxBuffer:
    return InfluxBuffer(tmp_path / "buffer")


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.is_file() and p.name != ".sending")


def test_points_wait_until_they_are_flushed_oldest_first(buffer: InfluxBuffer) -> None:
    for i, partition in enumerate(("z@1", "a@2")):
        buffer.add(partition, "m~s", [f"m,p={partition} a={i} 1"])
        os.utime(buffer.folder / f"{partition}~m~s.lp", ns=(i, i))
    assert list(buffer.lines()) == ["m,p=z@1 a=0 1", "m,p=a@2 a=1 1"]
    assert buffer.pending() == Pending(2, 2, 28)
    server = Recorder()
    seen: list[tuple[int, int]] = []
    report = buffer.flush(server, lambda done, of: seen.append((done, of)))
    assert server.requests == [["m,p=z@1 a=0 1", "m,p=a@2 a=1 1"]]
    assert (report.sent_batches, report.sent_points, report.remaining.batches) == (2, 2, 0)
    assert (report.rejected, report.stopped_because, seen) == ((), "", [(2, 2)])
    assert names(buffer.folder) == []
    assert buffer.flush(server).sent_batches == 0


def test_an_untouched_buffer_is_empty(buffer: InfluxBuffer) -> None:
    assert buffer.pending() == Pending(0, 0, 0)
    assert buffer.flush(Recorder()).sent_points == 0
    assert not buffer.folder.exists()


def test_a_batch_is_replaced_by_its_next_version_and_removed_by_an_empty_one(buffer: InfluxBuffer) -> None:
    buffer.add("a@1", "m", ["m a=1 1", "m a=2 2"])
    buffer.add("a@1", "m", ["m a=3 1"])
    assert list(buffer.lines()) == ["m a=3 1"]
    buffer.add("a@1", "m", [])
    assert buffer.pending().batches == 0


def test_what_is_waiting_survives_a_server_that_is_away(buffer: InfluxBuffer) -> None:
    buffer.add("a@1", "m", ["m a=1 1"])
    server = Recorder(lambda _: Answer("unavailable", "connection refused"))
    report = buffer.flush(server)
    assert (report.stopped_because, report.remaining.points, report.sent_points) == ("connection refused", 1, 0)
    server.answer = lambda _: WRITTEN
    assert buffer.flush(server).sent_points == 1


def test_large_buffers_go_in_requests_of_thousands_of_lines(buffer: InfluxBuffer) -> None:
    for i in range(12):
        buffer.add(f"a@{i}", "m", [f"m,i={i} a={j} {j}" for j in range(1000)])
    server = Recorder()
    assert buffer.flush(server).sent_points == 12_000
    assert [len(lines) for lines in server.requests] == [5000, 5000, 2000]


def test_bad_lines_are_put_aside_with_the_reason_and_hold_nothing_up(buffer: InfluxBuffer) -> None:
    for i in range(5):
        buffer.add(f"a@{i}", "m", [f"m,i={i} a={j} {j}" for j in range(7)])

    def picky(lines: Sequence[str]) -> Answer:
        bad = [line for line in lines if line in ("m,i=2 a=3 3", "m,i=4 a=0 0")]
        return Answer("rejected", f"field type conflict: {bad[0]}") if bad else WRITTEN

    server = Recorder(picky)
    report = buffer.flush(server)
    assert (report.sent_batches, report.sent_points, report.remaining.batches) == (3, 33, 0)
    assert set(server.taken) == {f"m,i={i} a={j} {j}" for i in range(5) for j in range(7)} - {
        "m,i=2 a=3 3",
        "m,i=4 a=0 0",
    }
    assert [(r.batch, r.lines) for r in report.rejected] == [("a@2~m", 1), ("a@4~m", 1)]
    rejected = buffer.folder / "rejected"
    assert (rejected / "a@2~m.lp").read_text() == "m,i=2 a=3 3\n"
    assert (rejected / "a@2~m.txt").read_text() == "field type conflict: m,i=2 a=3 3\n"
    assert buffer.flush(server).sent_points == 0


def test_a_server_that_goes_away_among_rejections_loses_nothing(buffer: InfluxBuffer) -> None:
    buffer.add("a@1", "m", ["m a=1 1", "bad", "m a=2 2"])
    server = Recorder()
    server.answer = lambda lines: (
        Answer("rejected", "no") if len(server.requests) == 1 else Answer("unavailable", "off")
    )
    report = buffer.flush(server)
    assert (report.stopped_because, report.remaining.points, report.rejected) == ("off", 3, ())


def test_a_batch_replaced_while_it_is_sent_stays(buffer: InfluxBuffer) -> None:
    buffer.add("a@1", "m", ["m a=1 1"])
    server = Recorder()

    def replace_meanwhile(lines: Sequence[str]) -> Answer:
        if len(server.requests) == 1:
            buffer.add("a@1", "m", ["m a=2 1"])
        return WRITTEN

    server.answer = replace_meanwhile
    buffer.flush(server)
    assert list(buffer.lines()) == ["m a=2 1"]
    buffer.flush(server)
    assert server.taken == ["m a=1 1", "m a=2 1"]


def test_a_batch_that_is_gone_when_it_was_sent_is_no_error(buffer: InfluxBuffer) -> None:
    buffer.add("a@1", "m", ["m a=1 1"])
    server = Recorder()

    def remove(_: Sequence[str]) -> Answer:
        buffer.add("a@1", "m", [])
        return WRITTEN

    server.answer = remove
    assert buffer.flush(server).stopped_because == ""
    assert buffer.pending().batches == 0


def test_an_older_version_never_reaches_the_server_after_a_newer(buffer: InfluxBuffer) -> None:
    """Another process has a newer version to send while the older is still on its way."""
    buffer.add("a@1", "m", ["m a=1 1"])
    other, server, slow = InfluxBuffer(buffer.folder), Recorder(), Recorder()

    def add_and_send() -> None:
        other.add("a@1", "m", ["m a=2 1"])
        other.flush(server)

    newer = threading.Thread(target=add_and_send)

    def arrive_late(lines: Sequence[str]) -> Answer:
        newer.start()
        time.sleep(0.5)
        return server.send(lines)

    slow.answer = arrive_late
    buffer.flush(slow)
    newer.join()
    assert server.taken == ["m a=1 1", "m a=2 1"]
    assert buffer.is_empty()


def test_whoever_sends_for_long_is_not_waited_for_for_ever(
    buffer: InfluxBuffer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LONGEST_TURN_S", 0.1)
    buffer.add("a@1", "m", ["m a=1 1"])
    reasons: list[str] = []

    def hang(_: Sequence[str]) -> Answer:
        report = InfluxBuffer(buffer.folder).flush(Recorder())
        reasons.append(report.stopped_because)
        assert report.remaining.points == 1
        return WRITTEN

    assert buffer.flush(Recorder(hang)).sent_points == 1
    assert reasons == ["another process is sending what waits"]


def test_what_was_rejected_waits_again_unless_a_newer_version_does(buffer: InfluxBuffer) -> None:
    for i in range(3):
        buffer.add(f"a@{i}", "m", [f"m,i={i} a=1 1"])
    buffer.flush(Recorder(lambda _: Answer("rejected", "no such field")))
    buffer.add("a@1", "m", ["m,i=1 a=2 1"])
    server = Recorder()
    assert buffer.requeue_rejected() == 2
    assert names(buffer.folder / "rejected") == []
    assert buffer.flush(server).sent_points == 3
    assert sorted(server.taken) == ["m,i=0 a=1 1", "m,i=1 a=2 1", "m,i=2 a=1 1"]
    assert buffer.requeue_rejected() == 0


def test_a_newer_version_that_is_sent_supersedes_what_was_rejected_of_the_older(buffer: InfluxBuffer) -> None:
    buffer.add("a@1", "m", ["m a=1 1"])
    buffer.flush(Recorder(lambda _: Answer("rejected", "no")))
    assert names(buffer.folder / "rejected") == ["a@1~m.lp", "a@1~m.txt"]
    buffer.add("a@1", "m", ["m a=2 1"])
    buffer.flush(Recorder())
    assert names(buffer.folder / "rejected") == []


@pytest.mark.parametrize(
    ("content", "whole", "damaged"),
    [
        (b"m a=1 1\nm a=2 17", ["m a=1 1"], b"m a=2 17"),
        (b"m a=1 1\n\0\0\0\0", ["m a=1 1"], b"\0\0\0\0"),
        (b"m a=1 1\nm,b=\xff\xfe a=2 2\nm a=3 3\n", ["m a=1 1", "m a=3 3"], b"m,b=\xff\xfe a=2 2\n"),
        (b"\0\0\0\0\0\0\0\0\n", [], b"\0\0\0\0\0\0\0\0\n"),
        (b"", [], b""),
        ("m,b=a\u2028b\x0b\x1c a=1 1\nm".encode(), ["m,b=a\u2028b\x0b\x1c a=1 1"], b"m"),
    ],
)
def test_damaged_lines_are_reported_and_kept_and_never_sent(
    buffer: InfluxBuffer, content: bytes, whole: list[str], damaged: bytes
) -> None:
    buffer.add("a@0", "m", ["m a=0 0"])
    buffer.add("a@1", "m", ["m a=1 1"])
    (buffer.folder / "a@1~m.lp").write_bytes(content)
    server = Recorder()
    report = buffer.flush(server)
    assert sorted(server.taken) == sorted(["m a=0 0", *whole])
    (rejected,) = report.rejected
    assert (rejected.batch, rejected.lines) == ("a@1~m", int(bool(damaged)))
    assert "damaged on this machine" in rejected.reason
    assert (buffer.folder / "rejected" / "a@1~m.damaged").read_bytes() == damaged
    assert (report.sent_points, buffer.is_empty(), buffer.requeue_rejected()) == (1 + len(whole), True, 0)


def test_a_full_buffer_is_waited_for(buffer: InfluxBuffer) -> None:
    buffer.max_bytes, buffer.max_wait_s = 20, 30
    buffer.add("a@1", "m", ["m a=1 1"])
    threading.Timer(0.7, lambda: buffer.flush(server)).start()
    server = Recorder()
    buffer.add("a@2", "m", ["m a=1 1", "m a=2 2"])
    assert server.taken == ["m a=1 1"]
    assert list(buffer.lines()) == ["m a=1 1", "m a=2 2"]


def test_whoever_waits_for_room_may_make_it(buffer: InfluxBuffer) -> None:
    buffer.max_bytes, buffer.max_wait_s = 20, 30
    server = Recorder()
    for i in range(10):
        buffer.add(f"a@{i}", "m", [f"m a=1 {i}", f"m a=2 1{i}"], make_room=lambda: buffer.flush(server))
    buffer.flush(server)
    assert sorted(server.taken) == sorted([f"m a={a} {'1' * (a - 1)}{i}" for i in range(10) for a in (1, 2)])


def test_waiting_for_room_ends(buffer: InfluxBuffer) -> None:
    buffer.max_bytes, buffer.max_wait_s = 20, 0.6
    buffer.add("a@1", "m", ["m a=1 1"])
    tried: list[None] = []
    with pytest.raises(StoreFullError, match=r"after 0.6 s of waiting; 16 more.*ml-pipeline replay.*buffer_bytes"):
        buffer.add("a@2", "m", ["m a=1 1", "m a=2 2"], make_room=lambda: tried.append(None))
    assert tried
    buffer.max_wait_s = 30
    started = time.monotonic()
    with pytest.raises(StoreFullError, match="22 more"):  # It would not fit an empty buffer either.
        buffer.add("a@2", "m", ["m a=1 1", "m a=2 2", "m a=3"])
    assert time.monotonic() - started < 5
    assert list(buffer.lines()) == ["m a=1 1"]
    assert names(buffer.folder) == ["a@1~m.lp"]


def test_points_are_on_the_disk_before_they_count_as_kept(
    buffer: InfluxBuffer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is synced before it gets its name, and the folder after."""
    buffer.add("a@0", "m", ["m a=1 1"])
    steps: list[str] = []
    sync, replace = os.fsync, Path.replace

    def watched_sync(descriptor: int) -> None:
        steps.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().suffix or 'folder'}")
        sync(descriptor)

    def watched_replace(self: Path, target: Path) -> Path:
        steps.append(f"rename {self.suffix} to {Path(target).suffix}")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", watched_sync)
    monkeypatch.setattr(Path, "replace", watched_replace)
    buffer.add("a@1", "m", ["m a=1 1"])
    assert steps == ["sync .tmp", "rename .tmp to .lp", "sync folder"]


def test_a_bounded_sender_leaves_the_rest_for_the_next_look(buffer: InfluxBuffer) -> None:
    for i in range(3):
        buffer.add(f"a@{i}", "m", [f"m,i={i} a={j} {j}" for j in range(4000)])

    def slowly(_: Sequence[str]) -> Answer:
        time.sleep(0.4)
        return WRITTEN

    server = Recorder(slowly)
    report = buffer.flush(BoundedSender(server, 0.6))
    assert (report.sent_batches, report.remaining.batches) == (2, 1)
    assert "the 0.6 s for one look are over" in report.stopped_because


def test_what_was_decided_before_the_server_went_away_is_not_sent_again(buffer: InfluxBuffer) -> None:
    for i in range(4):
        buffer.add(f"a@{i}", "m", [f"m,i={i} a=1 1"])
    server = Recorder()

    def answer(lines: Sequence[str]) -> Answer:
        if len(server.requests) > 4:
            return Answer("unavailable", "off")
        return Answer("rejected", "no") if "m,i=0 a=1 1" in lines else WRITTEN

    server.answer = answer
    report = buffer.flush(server)
    # All four, the first two, the first, the second, and then the server goes.
    assert [len(lines) for lines in server.requests] == [4, 2, 1, 1, 2]
    assert ([r.batch for r in report.rejected], report.sent_points) == (["a@0~m"], 1)
    assert list(buffer.lines()) == ["m,i=2 a=1 1", "m,i=3 a=1 1"]


def test_the_limit_refuses_and_drops_nothing(buffer: InfluxBuffer) -> None:
    buffer.max_bytes = 20
    buffer.add("a@1", "m", ["m a=1 1"])
    with pytest.raises(StoreFullError, match=r"8 bytes; 16 more would pass its limit of 20.*Nothing was dropped"):
        buffer.add("a@2", "m", ["m a=1 1", "m a=2 2"])
    assert list(buffer.lines()) == ["m a=1 1"]
    buffer.add("a@1", "m", ["m a=1 1", "m a=2 2"])
    assert buffer.pending().points == 2
    assert names(buffer.folder) == ["a@1~m.lp"]


@pytest.mark.parametrize(
    ("partition", "batch", "lines"),
    [("a/b", "m", ["m a=1"]), ("a", "../m", ["m a=1"]), ("a", "m", ["m a=1\nm a=2"]), ("a", "m", [""])],
)
def test_names_and_lines_that_would_break_out_are_refused(
    buffer: InfluxBuffer, partition: str, batch: str, lines: list[str]
) -> None:
    with pytest.raises(StoreError):
        buffer.add(partition, batch, lines)
    assert buffer.pending().batches == 0


def test_the_longest_keys_keep_apart(buffer: InfluxBuffer) -> None:
    for end in "ab":
        buffer.add("k" * 199 + end, "capability_score~capability", [f"m a=1 {ord(end)}"])
    assert buffer.pending().batches == 2


def test_full_disk(small_disk: Path) -> None:
    buffer = InfluxBuffer(small_disk / "buffer")
    buffer.add("a@1", "m", ["m a=1 1"])
    with pytest.raises(StoreFullError, match="Free space"):
        buffer.add("a@2", "m", ["m a=1 1"] * 200_000)
    assert list(buffer.lines()) == ["m a=1 1"]
    assert names(buffer.folder) == ["a@1~m.lp"]


def test_a_kill_during_a_flush_loses_nothing(buffer: InfluxBuffer) -> None:
    buffer.add("a@1", "m", ["m a=1 1"])
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from ml_pipeline.stores.influx_buffer import InfluxBuffer\n"
        "class Server:\n"
        "    def send(self, lines): os.kill(os.getpid(), signal.SIGKILL)\n"
        "InfluxBuffer(Path(sys.argv[1])).flush(Server())\n"
    )
    assert run_python(code, buffer.folder).returncode == -9
    assert list(buffer.lines()) == ["m a=1 1"]
    buffer.add("a@1", "m", ["m a=2 1"])  # The lock died with its holder.


def test_several_processes_add_and_flush_at_once(buffer: InfluxBuffer, tmp_path: Path) -> None:
    """Every version of every batch that was the last of its name must be sent by someone."""
    code = (
        "import sys; from pathlib import Path\n"
        "from ml_pipeline.stores.influx_buffer import InfluxBuffer\n"
        "from ml_pipeline.stores.influx_sending import Answer\n"
        "buffer, who = InfluxBuffer(Path(sys.argv[1])), sys.argv[3]\n"
        "sent = open(sys.argv[2], 'a', buffering=1)\n"
        "class Server:\n"
        "    def send(self, lines):\n"
        "        sent.write(chr(10).join(lines) + chr(10))\n"
        "        return Answer('written')\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "for i in range(60):\n"
        "    buffer.add(f'p@{i % 5}', f'm~{who}', [f'm,who={who} a={i} {i}'])\n"
        "    buffer.flush(Server())\n"
        "print('done', flush=True)\n"
    )
    log = tmp_path / "sent.txt"
    with (
        background_python(code, buffer.folder, log, "a") as one,
        background_python(code, buffer.folder, log, "b") as two,
    ):
        for process in (one, two):
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        for process in (one, two):
            assert process.stdout is not None
            assert process.stdout.readline() == "done\n"
    assert buffer.pending().batches == 0
    sent = log.read_text().splitlines()
    assert set(sent) == {f"m,who={who} a={i} {i}" for who in "ab" for i in range(60)}

"""Scoring runs on full disks, in read-only folders, and beside a server that fails: told clearly, nothing lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ml_pipeline_tests.disks import Disk
from ml_pipeline_tests.influxd import Front, Influxd, front_of
from ml_pipeline_tests.stores.rehearsal import Lab, Work, lab_in, publish, score
from ml_pipeline_tests.stores.rehearsal_checks import assert_on_the_server, assert_stored, assert_whole

OLD = Work("run", 1)
WORKS = [Work("run", 1, version=2), *(Work("run", i) for i in range(2, 4))]
VERSIONS = {work.key: [OLD, work] if work.iteration == 1 else [work] for work in WORKS}


@pytest.fixture
def lab(disk: Disk, influxd: Influxd, tmp_path: Path) -> Lab:
    """A lab on that disk, with one checkpoint scored; what Dagster records is elsewhere."""
    lab = Lab(disk.folder / "data", tmp_path / "records.txt", influxd.url)
    assert score(lab, [OLD]) == {}
    return lab


@pytest.mark.slow
@pytest.mark.parametrize("left_kib", [0, 40, 120, 300])
def test_a_full_disk_is_told_and_nothing_is_lost(disk: Disk, lab: Lab, influxd: Influxd, left_kib: int) -> None:
    disk.fill(left_kib * 1024)
    failed = score(lab, WORKS)
    assert len(failed) == len(lab.unfinished(WORKS)) > 0
    for message in failed.values():
        assert "No space left on device" in message
        assert "Free space" in message
        assert str(lab.root) in message
    assert_whole(lab, VERSIONS, influxd)
    disk.make_room()
    assert score(lab, WORKS) == {}
    publish(lab)
    assert_stored(lab, WORKS)
    assert_on_the_server(lab, influxd, WORKS)


@pytest.mark.slow
def test_a_read_only_disk_is_told_and_can_be_read(disk: Disk, lab: Lab, influxd: Influxd) -> None:
    disk.remount("ro")
    failed = score(lab, WORKS)
    assert failed.keys() == {work.key for work in WORKS}
    for message in failed.values():
        assert "Read-only file system" in message
        assert "writable for this user" in message
        assert str(lab.root) in message
    assert_stored(lab, [OLD])
    assert_on_the_server(lab, influxd, [OLD])
    disk.remount("rw")
    assert score(lab, WORKS) == {}
    assert_stored(lab, WORKS)
    assert_on_the_server(lab, influxd, WORKS)


@pytest.fixture
def front(influxd: Influxd) -> Iterator[Front]:
    with front_of(influxd.url) as front:
        yield front


@pytest.mark.slow
def test_a_server_that_fails_in_every_way_fails_no_run(influxd: Influxd, front: Front, tmp_path: Path) -> None:
    lab = Lab(tmp_path, tmp_path / "records.txt", front.url, influx_timeout_s=0.5)
    fates: list[int | str] = [500, 503, 429, 401, "hang", "lose"]
    for number, fate in enumerate(fates):
        front.plan.append(fate)
        assert score(lab, [Work("run", number)]) == {}
        assert not lab.influx().buffer().is_empty()
    front.plan.clear()
    assert score(lab, [Work("run", len(fates))]) == {}
    everything = [Work("run", number) for number in range(len(fates) + 1)]
    assert_stored(lab, everything)
    assert_on_the_server(lab, influxd, everything)


@pytest.mark.slow
def test_a_server_that_is_stopped_and_comes_back_has_every_run(tmp_path: Path) -> None:
    folder = tmp_path / "influxd"
    folder.mkdir()
    server = Influxd(folder)
    lab, works = lab_in(tmp_path / "data", server.url), [Work("run", i) for i in range(4)]
    for number, work in enumerate(works):
        if number % 2:
            with server.up():
                assert score(lab, [work]) == {}
                assert_on_the_server(lab, server, works[: number + 1])
        else:
            assert score(lab, [work]) == {}
            assert not lab.influx().buffer().is_empty()
    assert_stored(lab, works)

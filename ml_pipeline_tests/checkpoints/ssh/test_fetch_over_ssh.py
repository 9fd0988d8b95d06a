"""The fetch cache over a real SSH server and a bad network: cut, gone, changed, and never asked twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from ml_pipeline.checkpoints import transfer
from ml_pipeline.checkpoints.cache_room import CacheRoom
from ml_pipeline.checkpoints.fetch import FetchCache
from ml_pipeline.checkpoints.ssh import SshFolder
from ml_pipeline.checkpoints.ssh.connection import ConnectionPool
from ml_pipeline.errors import CheckpointChangedError, CheckpointError
from ml_pipeline_tests.checkpoints.sources import add_weights, only_checkpoint
from ml_pipeline_tests.sshd import Sshd
from ml_pipeline_tests.tcp_proxy import TcpProxy, running_proxy

SIZE = 12_000_000


def cache_in(tmp_path: Path) -> FetchCache:
    return FetchCache(CacheRoom(tmp_path / "cache", 10**9), 10**9, waits_s=(0, 0))


def behind(proxy: TcpProxy, sshd: Sshd, root: Path, pool: ConnectionPool) -> SshFolder:
    known_hosts = root.parent / "known_hosts"
    known_hosts.write_text(sshd.known_hosts.read_text().replace(str(sshd.port), str(proxy.port)))
    return SshFolder("mac", sshd.settings(root, port=proxy.port, known_hosts=known_hosts), pool)


@pytest.mark.parametrize("cuts", [1, 2])
def test_a_cut_connection_is_taken_up_where_it_broke(
    sshd: Sshd, root: Path, pool: ConnectionPool, tmp_path: Path, cuts: int
) -> None:
    content = add_weights(root, SIZE)
    with running_proxy(sshd.port) as proxy:
        source = behind(proxy, sshd, root, pool)
        checkpoint = only_checkpoint(source)
        proxy.cut_after_bytes, proxy.cuts_left = 5_000_000, cuts
        files = cache_in(tmp_path).fetch(source, checkpoint)
        assert proxy.cuts_left == 0
        assert files.weights.read_bytes() == content
        assert proxy.to_client_bytes < SIZE + (cuts + 1) * 3_000_000, "not from the start each time"


def test_what_broke_off_goes_on_in_the_next_fetch_and_is_then_never_asked_again(
    sshd: Sshd, root: Path, pool: ConnectionPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "_WORTH_ANOTHER_TRY_BYTES", SIZE)
    content = add_weights(root, SIZE)
    cache = cache_in(tmp_path)
    with running_proxy(sshd.port) as proxy:
        source = behind(proxy, sshd, root, pool)
        checkpoint = only_checkpoint(source)
        proxy.cut_after_bytes, proxy.cuts_left = 1_500_000, 3
        with pytest.raises(CheckpointError, match="bytes kept: the next attempt goes on from there"):
            cache.fetch(source, checkpoint)
        (part,) = (cache.folder / "parts").iterdir()
        kept_bytes = part.stat().st_size
        assert 0 < kept_bytes < SIZE
        proxy.cuts_left = 0
        seen: list[int] = []
        files = cache.fetch(source, checkpoint, lambda here, total: seen.append(here))
        assert seen[0] == kept_bytes
        assert files.weights.read_bytes() == content
        before = proxy.to_client_bytes
        assert cache.fetch(source, checkpoint) == files
        assert proxy.to_client_bytes - before < 10_000
    assert cache.fetch(source, checkpoint) == files, "the machine is gone, the content is here"


def test_a_file_that_shrinks_meanwhile_is_refused(sshd: Sshd, root: Path, pool: ConnectionPool, tmp_path: Path) -> None:
    add_weights(root, SIZE)
    source = SshFolder("mac", sshd.settings(root), pool)
    checkpoint = only_checkpoint(source)

    def shrink(here: int, total: int) -> None:
        if here:
            (root / checkpoint.file).write_bytes(b"short")

    cache = cache_in(tmp_path)
    with pytest.raises(CheckpointChangedError, match="changed since it was discovered"):
        cache.fetch(source, checkpoint, shrink)
    assert list((cache.folder / "parts").iterdir()) == []

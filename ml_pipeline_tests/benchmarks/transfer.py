"""MB a second of copying one file of 200 MB from a real sshd over loopback, ours against scp and paramiko.

    python -m ml_pipeline_tests.benchmarks.transfer [--json] [--megabytes N] [--repeats N]

- ours: the source's own reader, written to a file; connected before, as in the pipeline.
- scp: OpenSSH's, a process that connects, copies and ends; the time of an empty file is taken off, so that only the
  copying is compared.
- paramiko_get: its SFTP client's `get` with its own read-ahead.

The file lies in memory (the page cache) and copies go to the same disk. Every copy is compared by its hash.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paramiko

from ml_pipeline.checkpoints.ssh import SshFolder
from ml_pipeline.checkpoints.ssh.connection import ConnectionPool
from ml_pipeline_tests.benchmarks.result import compare, interleaved, medians, print_result
from ml_pipeline_tests.servers import require_binary
from ml_pipeline_tests.sshd import Sshd, running_sshd

_CHUNK_BYTES = 2**20
_FILE = "0000100_adapters.safetensors"


def sha256(path: Path) -> str:
    """The hash of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Copying:
    """Every way to copy the file."""

    def __init__(self, sshd: Sshd, root: Path, copies: Path, stack: contextlib.ExitStack) -> None:
        self.sshd, self.root, self.copies = sshd, root, copies
        self.expected = sha256(root / _FILE)
        self.megabytes = (root / _FILE).stat().st_size / 1e6
        pool = ConnectionPool()
        stack.callback(pool.close)
        self.folder = SshFolder("mac", sshd.settings(root), pool)
        self.folder.stat(_FILE)
        client: Any = stack.enter_context(paramiko.SSHClient())
        client.load_host_keys(str(sshd.known_hosts))
        client.connect(
            "127.0.0.1", port=sshd.port, key_filename=str(sshd.client_key), allow_agent=False, look_for_keys=False
        )
        self.sftp = client.open_sftp()

    def timed(self, copy: Callable[[Path], float]) -> float:
        """MB a second of a copy, which returns its seconds and is verified."""
        target = self.copies / "copy"
        seconds = copy(target)
        assert sha256(target) == self.expected
        target.unlink()
        return self.megabytes / seconds

    def ours(self, target: Path) -> float:
        """By the source."""
        start = time.perf_counter()
        with self.folder.open(_FILE) as file, target.open("wb") as out:
            while chunk := file.read(_CHUNK_BYTES):
                out.write(chunk)
        return time.perf_counter() - start

    def paramiko_get(self, target: Path) -> float:
        """By paramiko."""
        start = time.perf_counter()
        self.sftp.get(f"{self.root}/{_FILE}", str(target))
        return time.perf_counter() - start

    def scp(self, target: Path) -> float:
        """By OpenSSH."""
        empty_s = self._scp("empty", self.copies / "empty")
        return self._scp(_FILE, target) - empty_s

    def _scp(self, name: str, target: Path) -> float:
        command = [require_binary("scp", "openssh-client"), "-q", "-P", str(self.sshd.port), "-F", "none"]
        command += ["-i", str(self.sshd.client_key), "-o", "IdentitiesOnly=yes"]
        command += ["-o", f"UserKnownHostsFile={self.sshd.known_hosts}", f"127.0.0.1:{self.root}/{name}", str(target)]
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="MB a second of one file over SSH")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        root, copies = Path(place) / "runs", Path(place) / "copies"
        root.mkdir()
        copies.mkdir()
        (root / _FILE).write_bytes(os.urandom(10**6) * arguments.megabytes)
        (root / "empty").touch()
        sshd = stack.enter_context(running_sshd(Path(place) / "sshd"))
        ways = Copying(sshd, root, copies, stack)
        figures = interleaved(
            {
                "ours": lambda: ways.timed(ways.ours),
                "scp": lambda: ways.timed(ways.scp),
                "paramiko_get": lambda: ways.timed(ways.paramiko_get),
            },
            arguments.repeats,
        )
        stack.close()
    context = {
        "megabytes": arguments.megabytes,
        "repeats": arguments.repeats,
        "all_figures": {name: [round(value, 1) for value in values] for name, values in figures.items()},
    }
    print_result(
        compare("transfer", "MB/s", medians(figures), more_is_better=True, context=context), as_json=arguments.json
    )


if __name__ == "__main__":
    main()

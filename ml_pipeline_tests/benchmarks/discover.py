"""Seconds of one look at 10,000 checkpoints in 200 run folders behind a real sshd, ours against other ways.

    python -m ml_pipeline_tests.benchmarks.discover [--json] [--folders N] [--checkpoints N] [--repeats N]

- ours: a full look over the connection that the pipeline keeps between looks: every folder listed, every name sorted.
- original: one `ssh` process per listing, one for the run folders and two for each; ten folders timed and scaled.
- sftp: paramiko's own SFTP client over a connection kept open, one folder after another, names only.
- sftp_30ms: as sftp, through a proxy that adds 30 ms to a round trip, a tenth of the folders timed and scaled. Its
  ratio is to our look through the same proxy, ours_30ms in the context.
- unchanged: a full look over a look at folders that did not change; its ratio says how many times cheaper that is.

Connecting is not part of the figures of sftp and ours; the context has it.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paramiko

from ml_pipeline.checkpoints.discovery import Memory, discover
from ml_pipeline.checkpoints.ssh import SshFolder
from ml_pipeline.checkpoints.ssh.connection import ConnectionPool
from ml_pipeline_tests.benchmarks.result import compare, interleaved, medians, print_result
from ml_pipeline_tests.servers import require_binary
from ml_pipeline_tests.sshd import Sshd, running_sshd, trust
from ml_pipeline_tests.tcp_proxy import running_proxy

ADDED_S = 0.030
ORIGINAL_FOLDERS = 10
OLD_S = 1_700_000_000


def make_tree(root: Path, folders: int, checkpoints: int) -> None:
    """Run folders as mlx-lm leaves them; the files are empty, since nothing here reads them."""
    for number in range(folders):
        folder = root / f"adapters-1b-run-{number:04}"
        folder.mkdir(parents=True)
        names = [f"{100 * step:07}_adapters.safetensors" for step in range(1, checkpoints // folders + 1)]
        for name in [*names, "adapters.safetensors", "adapter_config.json", "train.log"]:
            (folder / name).touch()
            os.utime(folder / name, (OLD_S, OLD_S))
        os.utime(folder, (OLD_S, OLD_S))


class Looking:
    """Every way to look at one tree."""

    def __init__(self, sshd: Sshd, root: Path, checkpoints: int) -> None:
        self.sshd, self.root, self.checkpoints = sshd, root, checkpoints
        self.pool = ConnectionPool()
        self.connect_s: dict[str, float] = {}

    def ours(self, port: int, memory: Memory | None = None) -> Callable[[], float]:
        """A look by the pipeline; with a memory, at what did not change since."""
        folder = SshFolder("mac", self.sshd.settings(self.root, port=port), self.pool)
        start = time.perf_counter()
        folder.list_folder("adapters-1b-run-0000")
        self.connect_s.setdefault("ours", time.perf_counter() - start)

        def look() -> float:
            start = time.perf_counter()
            found = discover(
                folder, (), now_ns=time.time_ns(), settle_s=60, memory=memory, full_look_s=3600 if memory else 0
            )
            seconds = time.perf_counter() - start
            assert (len(found.checkpoints), found.problems) == (self.checkpoints, [])
            return seconds

        return look

    def sftp(self, port: int, stack: contextlib.ExitStack, share: float = 1.0) -> Callable[[], float]:
        """paramiko's client, folder by folder; of a share of the folders, scaled."""
        start = time.perf_counter()
        client: Any = stack.enter_context(paramiko.SSHClient())
        client.load_host_keys(str(self.sshd.known_hosts))
        client.connect(
            "127.0.0.1", port=port, key_filename=str(self.sshd.client_key), allow_agent=False, look_for_keys=False
        )
        sftp = client.open_sftp()
        self.connect_s.setdefault("sftp", time.perf_counter() - start)

        def look() -> float:
            start = time.perf_counter()
            names = [entry.filename for entry in sftp.listdir_attr(str(self.root))]
            names = names[: max(1, round(share * len(names)))]
            files = sum(len(sftp.listdir_attr(f"{self.root}/{name}")) for name in names)
            assert files > share * self.checkpoints * 0.9
            return (time.perf_counter() - start) / share

        return look

    def original(self, folders: int) -> float:
        """An ssh process for each listing."""
        command = [require_binary("ssh", "openssh-client"), "-p", str(self.sshd.port), "-i", str(self.sshd.client_key)]
        command += ["-o", f"UserKnownHostsFile={self.sshd.known_hosts}", "-o", "IdentitiesOnly=yes", "-F", "none"]

        def listing(remote: str) -> list[str]:
            done = subprocess.run([*command, "127.0.0.1", remote], capture_output=True, text=True, check=True)
            return done.stdout.split()

        root = shlex.quote(str(self.root))
        start = time.perf_counter()
        names = listing(f"ls -d {root}/adapters-*")[:ORIGINAL_FOLDERS]
        once_s = time.perf_counter() - start
        for name in names:
            listing(f"ls -d {name}/*/ 2>/dev/null || true")
            listing(f"ls {name}/*_adapters.safetensors")
        return once_s + (time.perf_counter() - start - once_s) / len(names) * folders


@contextlib.contextmanager
def looking(folders: int, checkpoints: int) -> Iterator[tuple[Looking, int]]:
    """The ways to look, and the port of the slow network."""
    with tempfile.TemporaryDirectory() as place, running_sshd(Path(place) / "sshd") as sshd:
        root = Path(place) / "runs"
        make_tree(root, folders, checkpoints)
        with running_proxy(sshd.port, round_trip_s=ADDED_S) as proxy:
            trust(sshd.known_hosts, proxy.port, sshd.folder / "host_ed25519")
            ways = Looking(sshd, root, checkpoints)
            yield ways, proxy.port
            ways.pool.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="seconds of one look at a machine's checkpoints")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--folders", type=int, default=200)
    parser.add_argument("--checkpoints", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    folders, checkpoints = arguments.folders, arguments.checkpoints // arguments.folders * arguments.folders
    with looking(folders, checkpoints) as (ways, slow_port), contextlib.ExitStack() as stack:
        memory = Memory()
        unchanged = ways.ours(ways.sshd.port, memory)
        unchanged()
        subjects = {
            "ours": ways.ours(ways.sshd.port),
            "sftp": ways.sftp(ways.sshd.port, stack),
            "original": lambda: ways.original(folders),
            "unchanged": unchanged,
            "ours_30ms": ways.ours(slow_port),
            "sftp_30ms": ways.sftp(slow_port, stack, share=0.1),
        }
        figures = interleaved(subjects, arguments.repeats)
        context = {
            "checkpoints": checkpoints,
            "folders": folders,
            "repeats": arguments.repeats,
            "connect_s": {name: round(seconds, 3) for name, seconds in ways.connect_s.items()},
            "all_figures": {name: [round(value, 4) for value in values] for name, values in figures.items()},
        }
    middle = medians(figures)
    context["ours_30ms"] = ours_30ms = round(middle.pop("ours_30ms"), 4)
    result = compare("discover", "s", middle, more_is_better=False, context=context)
    ratio = result.ratio | {
        "sftp_30ms": middle["sftp_30ms"] / ours_30ms,
        "unchanged": middle["ours"] / middle["unchanged"],
    }
    print_result(dataclasses.replace(result, ratio=ratio), as_json=arguments.json)


if __name__ == "__main__":
    main()

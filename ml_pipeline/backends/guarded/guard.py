"""What runs where the model is: starts its server, and ends it as soon as nobody holds on to it any more.

This file is not imported there: its text is handed to that host's Python (3.8 or newer, with mlx-lm installed where
mlx_lm.server is to be started, else with nothing). It reads commands from its standard input and answers on its
standard output, one JSON object a line. The server ends when the input ends (the other side closed it, died, or the
connection broke), when no line came for a while (the connection is dead without either side knowing), when this process
is told to end, and, if it is mlx_lm.server, through a pipe that only this process holds open, when this process is
killed.

    {"id": 1, "do": "start", "with": {"boot": text, "model": path or hub id, ...}}  ->  {"id": 1, "port": ..., ...}
    {"id": 2, "do": "adapter", "with": {"weights": path, "config": path}}            ->  {"id": 2, "folder": ..., ...}
    {"id": 3, "do": "fingerprints", "with": {"paths": [...]}}                        ->  {"id": 3, "fingerprints": ...}
    {"id": 4, "do": "model", "with": {"model": path or hub id}}                      ->  {"id": 4, "sha256": ..., ...}
    {"id": 5, "do": "alive"}                                                         ->  {"id": 5}
    {"id": 6, "do": "run", "with": {"command": [...], "environment": {...}}}         ->  {"id": 6, "process": ..., ...}

A command that fails is answered with {"id": ..., "error": text}; {"exited": code} comes when the server ends.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

_LARGEST_CONFIG_BYTES = 1 << 20
_LARGEST_HEADER_BYTES = 8 << 20
_LONGEST_COMMAND_BYTES = 1 << 20
_TERMINATE_WAIT_S = 3.0


class Guard:
    """The server's process, and the folder of links through which it sees adapters."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.lifeline: int | None = None
        self.folder = Path(tempfile.mkdtemp(prefix="mlx-server-"))
        self._output = threading.Lock()

    def say(self, message: dict[str, Any]) -> None:
        """Write one line; when nobody listens, the end of the input says so soon."""
        with self._output, suppress(OSError, ValueError):
            sys.stdout.write(json.dumps(message) + "\n")
            sys.stdout.flush()

    def obey(self, command: dict[str, Any]) -> None:
        """Run one command and answer it."""
        try:
            answer = getattr(self, "do_" + command["do"])(**command.get("with", {}))
        # Whatever goes wrong is for the other side to read.
        except Exception as error:
            answer = {"error": describe(error)}
        self.say(dict(answer, id=command.get("id")))

    def do_start(self, boot: str, model: str, arguments: list[str]) -> dict[str, Any]:
        """Start the server and wait until it listens; it may still be loading the model then."""
        folder = Path(model).expanduser()
        if folder.is_dir():
            model = str(folder.resolve())
        lifeline, self.lifeline = os.pipe()
        listening, report = os.pipe()
        options = ["--model", model, "--host", "127.0.0.1", "--port", "0"]
        self._launch([sys.executable, "-c", boot, str(lifeline), str(report), *options, *arguments], (lifeline, report))
        os.close(lifeline)
        os.close(report)
        line = b""
        while not line.endswith(b"\n"):
            byte = os.read(listening, 1)
            if not byte:
                raise RuntimeError("mlx_lm.server ended before it listened")
            line += byte
        os.close(listening)
        return {"port": int(line), "model": model, "versions": versions()}

    def do_run(self, command: list[str], environment: dict[str, str]) -> dict[str, Any]:
        """Start any other server; {folder} in its command is a folder of this user's alone that goes when it ends."""
        process = self._launch([word.replace("{folder}", str(self.folder)) for word in command], (), environment)
        return {"process": process.pid, "folder": str(self.folder)}

    def do_adapter(self, weights: str, config: str) -> dict[str, Any]:
        """Make a folder of links to the two files, under the names that mlx-lm expects, and say what they hold."""
        files = [regular_file(weights), regular_file(config)]
        before = [fingerprint(file) for file in files]
        if before[1][0] > _LARGEST_CONFIG_BYTES:
            raise ValueError(
                f"{config}: {before[1][0]} bytes; an adapter_config.json has {_LARGEST_CONFIG_BYTES} at most"
            )
        config_text = files[1].read_bytes()
        header, sha256 = safetensors_header(files[0]), file_sha256(files[0])
        if [fingerprint(file) for file in files] != before:
            raise ValueError(f"{weights}: it changed while it was read. It is still being written; try again later")
        folder = Path(tempfile.mkdtemp(prefix="adapter-", dir=self.folder))
        (folder / "adapters.safetensors").symlink_to(files[0])
        (folder / "adapter_config.json").symlink_to(files[1])
        return {
            "folder": str(folder),
            "files": [str(file) for file in files],
            "fingerprints": before,
            "weights_sha256": sha256,
            "size_bytes": before[0][0],
            # One character a byte, so that JSON carries any of them.
            "header": header.decode("latin-1"),
            "config_text": config_text.decode("latin-1"),
        }

    def do_fingerprints(self, paths: list[str]) -> dict[str, Any]:
        """Say what changes when a file is written again."""
        return {"fingerprints": [fingerprint(Path(path)) for path in paths]}

    def do_model(self, model: str) -> dict[str, Any]:
        """Say what exactly the base model is."""
        return model_facts(model_folder(model))

    def do_alive(self) -> dict[str, Any]:
        """Say that the line is up."""
        return {}

    def end(self) -> None:
        """End the server with all of its children, and remove the links."""
        if self.process is not None:
            for number in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.killpg(self.process.pid, number)
                except OSError:
                    break
                try:
                    self.process.wait(_TERMINATE_WAIT_S)
                except subprocess.TimeoutExpired:
                    continue
        shutil.rmtree(self.folder, ignore_errors=True)

    def _launch(
        self, command: list[str], descriptors: tuple[int, ...], environment: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        if self.process is not None:
            raise RuntimeError("the server was started already")
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=2,
            pass_fds=descriptors,
            env=dict(os.environ, **(environment or {})),
            start_new_session=True,
        )
        threading.Thread(target=self._report_exit, args=(self.process,), daemon=True).start()
        return self.process

    def _report_exit(self, process: subprocess.Popen[bytes]) -> None:
        self.say({"exited": process.wait()})


def describe(error: Exception) -> str:
    """An error as one line."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"


def regular_file(path: str) -> Path:
    """The real path of a file; a FIFO or device would block whoever opens it."""
    real = Path(path).expanduser().resolve()
    if not stat.S_ISREG(real.stat().st_mode):
        raise ValueError(f"{path}: not a regular file")
    return real


def fingerprint(path: Path) -> list[int]:
    """What changes when a file is written again: size, times in ns, inode."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def file_sha256(path: Path) -> str:
    """Hash a file in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for piece in iter(lambda: file.read(1 << 20), b""):
            digest.update(piece)
    return digest.hexdigest()


def safetensors_header(path: Path) -> bytes:
    """The length and the JSON at the start of a safetensors file, unread otherwise."""
    with path.open("rb") as file:
        start = file.read(8)
        if len(start) < 8:
            raise ValueError(f"{path}: {len(start)} bytes, too short for a safetensors file")
        (length,) = struct.unpack("<Q", start)
        if length > _LARGEST_HEADER_BYTES:
            raise ValueError(
                f"{path}: claims a header of {length} bytes; an adapter has {_LARGEST_HEADER_BYTES} at most"
            )
        return start + file.read(length)


def model_folder(model: str) -> Path:
    """The folder of a model given by its path or by the id of one that the hub's cache on this machine holds."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder.resolve()
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.safetensors", "*.jinja", "*.model"]
    return Path(snapshot_download(model, local_files_only=True, allow_patterns=patterns))


def model_facts(folder: Path) -> dict[str, Any]:
    """What exactly a base model is: hashes of its files, and how it is quantised."""
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix == ".safetensors" or file.name in ("config.json", "tokenizer.json", "tokenizer.model"):
            digest.update(f"{file.name} {file_sha256(file)}\n".encode())
    config = read_json(folder, "config.json")
    return {
        "sha256": digest.hexdigest(),
        "quantization": config.get("quantization"),
        "dtype": config.get("torch_dtype") or config.get("dtype"),
        "chat_template_sha256": hashlib.sha256(chat_template(folder)).hexdigest(),
    }


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """A JSON object of the model's folder; empty when it is not there."""
    try:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return content if isinstance(content, dict) else {}


def chat_template(folder: Path) -> bytes:
    """The bytes of the chat template, wherever the model keeps it."""
    try:
        return (folder / "chat_template.jinja").read_bytes()
    except FileNotFoundError:
        template = read_json(folder, "tokenizer_config.json").get("chat_template", "")
        return (template if isinstance(template, str) else json.dumps(template)).encode("utf-8", "replace")


def versions() -> dict[str, str]:
    """Versions of what computes."""
    from importlib import metadata

    found = {"python": ".".join(map(str, sys.version_info[:2]))}
    for package in ("mlx-lm", "mlx"):
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def commands(lost_after_s: float) -> Iterator[dict[str, Any]]:
    """Yield commands until the input ends, is silent for too long, or makes no sense."""
    pending, heard_at = b"", time.monotonic()
    while True:
        wait_s = heard_at + lost_after_s - time.monotonic()
        if wait_s <= 0 or not select.select([0], [], [], wait_s)[0]:
            return
        piece = os.read(0, 1 << 16)
        if not piece or len(pending) > _LONGEST_COMMAND_BYTES:
            return
        heard_at = time.monotonic()
        *lines, pending = (pending + piece).split(b"\n")
        for line in lines:
            yield json.loads(line)


def main() -> None:
    """Obey until the end. Each command has its own thread, so that the end of the input is seen at once."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(1))
    guard = Guard()
    try:
        for command in commands(float(sys.argv[1])):
            threading.Thread(target=guard.obey, args=(command,), daemon=True).start()
    finally:
        guard.end()
        # A thread may still be hashing a large file.
        os._exit(0)


if __name__ == "__main__":
    main()

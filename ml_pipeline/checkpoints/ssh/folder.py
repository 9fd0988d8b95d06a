"""A folder of another machine as a source of checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import BinaryIO, TypeVar

from ml_pipeline.checkpoints.source import Entry
from ml_pipeline.checkpoints.ssh import listing
from ml_pipeline.checkpoints.ssh.connection import BROKEN, POOL, Connection, ConnectionPool, reason_of
from ml_pipeline.checkpoints.ssh.protocol import SftpProtocolError, SftpRefusalError
from ml_pipeline.checkpoints.ssh.reader import RemoteFile, as_binary_io, bytes_ahead
from ml_pipeline.checkpoints.ssh.route import Route, plan_route
from ml_pipeline.checkpoints.ssh.session import SftpSession
from ml_pipeline.errors import CheckpointError, SourceUnreachableError
from ml_pipeline.source_settings import DEFAULT_RUN_PREFIX, SshSource

Result = TypeVar("Result")


class SshFolder:
    """Reads a folder by SFTP over one connection, which is shared by the process and made again when it dies.

    Links are followed only as far as they stay inside the folder. A connection that turns out to be dead is made
    again once; one that stalls or breaks during the work is an error, and the next use makes another.
    """

    mtime_granularity_ns = 10**9
    """SFTP tells times in whole seconds."""
    run_prefix = DEFAULT_RUN_PREFIX

    def __init__(self, name: str, settings: SshSource, pool: ConnectionPool = POOL) -> None:
        """Plan the route; connects only when it is first used.

        Raises:
            SettingsError: proxy_jump or ~/.ssh/config is wrong.
        """
        self.name = name
        self.route: Route = plan_route(settings)
        self._base = str(settings.path)
        self._pool = pool
        self._root: str | None = None

    @property
    def identity(self) -> str:
        """The machine and folder, as a URL; the same for two sources that read the same."""
        return f"ssh://{self.route}/{self._base}"

    def list_folder(self, path: str) -> list[Entry]:
        """The files and folders in `path`; a link that cannot be followed is an entry with trouble.

        Raises:
            SourceUnreachableError: there is no connection.
            CheckpointError: the folder cannot be read.
        """
        if not path:
            self._root = None  # each look starts here, and sees where the base folder leads now
        found = self.list_folders([path])[path]
        if isinstance(found, CheckpointError):
            raise found
        return found

    def list_folders(self, paths: Sequence[str]) -> dict[str, list[Entry] | CheckpointError]:
        """As `list_folder` for many at once, over one connection and in a few round trips.

        Raises:
            SourceUnreachableError: there is no connection, or it broke on the way.
        """

        def work(session: SftpSession) -> dict[str, list[Entry] | SftpRefusalError]:
            root = self._resolved_root(session)
            listed = session.run({path: listing.list_folder(root, path) for path in paths})
            found: dict[str, list[Entry] | SftpRefusalError] = {
                path: result if isinstance(result, SftpRefusalError) else result[0] for path, result in listed.items()
            }
            links = {
                (path, name): listing.follow_link(root, path, name)
                for path, result in listed.items()
                if not isinstance(result, SftpRefusalError)
                for name in result[1]
            }
            for (path, _), entry in session.run(links).items():
                entries = found[path]
                if isinstance(entry, Entry) and isinstance(entries, list):
                    entries.append(entry)
            return found

        return self._each(paths, work)

    def stat(self, path: str) -> Entry:
        """Size and time of one file or folder; raises as `list_folder` does."""
        found = self.stats([path])[path]
        if isinstance(found, CheckpointError):
            raise found
        return found

    def stats(self, paths: Sequence[str]) -> dict[str, Entry | CheckpointError]:
        """As `stat` for many at once; raises as `list_folders` does."""

        def work(session: SftpSession) -> dict[str, Entry | SftpRefusalError]:
            root = self._resolved_root(session)
            return session.run({path: listing.look_at(root, path) for path in paths})

        return self._each(paths, work)

    def read_starts(self, wanted: Mapping[str, int]) -> dict[str, bytes | CheckpointError]:
        """The first so many bytes of each file, or all of a shorter one; raises as `list_folders` does."""

        def work(session: SftpSession) -> dict[str, bytes | SftpRefusalError]:
            root = self._resolved_root(session)
            return session.run({path: listing.read_start(root, path, length) for path, length in wanted.items()})

        return self._each(list(wanted), work)

    def open(self, path: str, offset: int = 0) -> BinaryIO:
        """Open a file for reading from `offset` (in bytes) to the end that it has now; raises as `list_folder` does.

        The file holds a session of the connection until it is closed.
        """

        def start(connection: Connection) -> RemoteFile:
            session = connection.take_session()
            try:
                root = self._resolved_root(session)
                started_s = time.perf_counter()
                handle, size_bytes = session.run_one(listing.open_regular(root, path))
                round_trip_s = (time.perf_counter() - started_s) / listing.ROUND_TRIPS_TO_OPEN
            except SftpRefusalError:
                connection.give_back(session, reusable=True)
                raise
            except BaseException:
                connection.give_back(session, reusable=False)
                raise
            return RemoteFile(
                session,
                handle,
                size_bytes,
                offset,
                ahead_bytes=bytes_ahead(round_trip_s),
                guard=lambda: self._reading(connection, path),
                on_close=lambda reusable: connection.give_back(session, reusable=reusable),
            )

        try:
            return as_binary_io(self._connected(start))
        except SftpRefusalError as refusal:
            raise self._unreadable(path, refusal) from refusal

    def close(self) -> None:
        """Close the connection; the next use makes another."""
        self._pool.close_route(self.route)

    def _each(
        self, paths: Sequence[str], work: Callable[[SftpSession], Mapping[str, Result | SftpRefusalError]]
    ) -> dict[str, Result | CheckpointError]:
        def with_session(connection: Connection) -> Mapping[str, Result | SftpRefusalError]:
            session = connection.take_session()
            healthy = False
            try:
                found = work(session)
                healthy = True
                return found
            except SftpRefusalError:
                healthy = True
                raise
            finally:
                connection.give_back(session, reusable=healthy)

        if not paths:
            return {}
        try:
            found = self._connected(with_session)
        except SftpRefusalError as refusal:  # the base folder itself
            return {path: self._unreadable("", refusal) for path in paths}
        return {
            path: self._unreadable(path, result) if isinstance(result, SftpRefusalError) else result
            for path, result in found.items()
        }

    def _connected(self, work: Callable[[Connection], Result]) -> Result:
        """Do the work, once more if the connection had died since it was last used."""
        for attempt in (1, 2):
            connection = self._pool.get(f"source {self.name}", self.route)
            was_used = connection.was_used
            try:
                return work(connection)
            except BROKEN as error:
                self._pool.drop(connection)
                if attempt == 2 or not was_used or isinstance(error, TimeoutError | SftpProtocolError):
                    raise self._lost(error) from error
        raise AssertionError("unreachable")

    @contextmanager
    def _reading(self, connection: Connection, path: str) -> Iterator[None]:
        try:
            yield
        except SftpRefusalError as refusal:
            raise self._unreadable(path, refusal) from refusal
        except BROKEN as error:
            self._pool.drop(connection)
            raise self._lost(error) from error

    def _resolved_root(self, session: SftpSession) -> str:
        root = self._root
        if root is None:
            self._root = root = session.run_one(listing.resolve(self._base))
        return root

    def _lost(self, error: BaseException) -> SourceUnreachableError:
        return SourceUnreachableError(
            f"source {self.name}: the connection to {self.route} broke: {reason_of(error)}. It is made again at the "
            "next try; if this goes on, check the machine and the network, or raise timeout_s in pipeline.yaml."
        )

    def _unreadable(self, path: str, refusal: SftpRefusalError) -> CheckpointError:
        return CheckpointError(
            f"source {self.name}: cannot read {path or '.'!r:.200} in {self.identity}: {refusal}. "
            "Mend the path or the permissions, or sources in pipeline.yaml."
        )

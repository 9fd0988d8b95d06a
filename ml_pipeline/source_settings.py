"""Settings of the places that hold checkpoints: one section for each kind of source, told apart by `type`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from ml_pipeline.addresses import holds_login, secrets_in, shown_url

DEFAULT_RUN_PREFIX = "adapters-"
_FILTER_MEANING = "Shell pattern on the run's name; others are ignored."
LOGIN_OF_FILE_SYSTEM = (
    "Give it where the file system looks by itself: for s3:// AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the "
    "environment, or ~/.aws/credentials; for gs:// GOOGLE_APPLICATION_CREDENTIALS; for az:// AZURE_STORAGE_..."
)
_NO_PASSWORD = "holds a password, and none is ever taken: log in with a key (key_file, or the agent)"
_PREFIX_MEANING = "How the run folders' names begin; what follows is the run's name. Empty: every folder is a run."


class Section(BaseModel):
    """A section of pipeline.yaml: unknown names are refused, values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class LocalSource(Section):
    """A folder of this machine that holds run folders."""

    type: Literal["local"] = Field(description="`local`: a folder of this machine.")
    path: Path = Field(description="Folder that holds the run folders.")
    filter: str = Field("*", description=_FILTER_MEANING)
    run_prefix: str = Field(DEFAULT_RUN_PREFIX, pattern=r"^[^/\x00]*$", description=_PREFIX_MEANING)


class SshSource(Section):
    """A folder of another machine, read by SFTP. Keys come from a file or the agent; there are no passwords."""

    type: Literal["ssh"] = Field(description="`ssh`: a folder of another machine, read by SFTP.")
    host: str = Field(pattern=r"^[^\s,@/-][^\s,@/]*$", description="Name or address of the machine.")
    port: int | None = Field(None, ge=1, le=65535, description="Its SSH port; unset: 22.")
    user: str | None = Field(None, min_length=1, description="User there; unset: the user's name here.")
    key_file: Path | None = Field(
        None, description="Private key without a passphrase, or one that the agent holds; unset: agent, then ~/.ssh."
    )
    use_ssh_config: bool = Field(
        False,
        description="Take what is unset here from ~/.ssh/config, as `ssh` does: names, users, keys, the agent, jumps, "
        "files of known hosts. What `ssh` would do and is not done here is refused by name.",
    )
    proxy_jump: str | None = Field(
        None, description="Machines to go through, `[user@]host[:port]`, separated by commas."
    )
    known_hosts: Path = Field(Path("~/.ssh/known_hosts"), description="File of the host keys that are trusted.")
    accept_new_host_key: bool = Field(
        False, description="Trust a machine's key on first sight and record it; a changed key is always refused."
    )
    path: PurePosixPath = Field(
        description="Folder that holds the run folders; a relative one starts at the user's home there."
    )
    filter: str = Field("*", description=_FILTER_MEANING)
    run_prefix: str = Field(DEFAULT_RUN_PREFIX, pattern=r"^[^/\x00]*$", description=_PREFIX_MEANING)
    connect_timeout_s: float = Field(15, gt=0, le=600, description="Longest time to connect and log in, in s.")
    timeout_s: float = Field(30, gt=0, le=600, description="Longest wait for an answer, in s.")

    @field_validator("user")
    @classmethod
    def _plain_user(cls, value: str | None) -> str | None:
        if value is not None and ":" in value:
            raise ValueError(_NO_PASSWORD)
        return value

    @field_validator("proxy_jump")
    @classmethod
    def _no_password(cls, value: str | None) -> str | None:
        if value is not None and any(holds_login(one) for one in value.split(",")):
            raise ValueError(_NO_PASSWORD)
        return value

    @field_validator("path")
    @classmethod
    def _plain_path(cls, value: PurePosixPath) -> PurePosixPath:
        if value.parts[:1] == ("~",):
            value = PurePosixPath(*value.parts[1:])
        if "\0" in str(value) or str(value).startswith("~"):
            raise ValueError("must be an absolute path, or one relative to the user's home, without other users' '~'")
        return value


class FsspecSource(Section):
    """A folder of run folders in object storage or on any other file system that fsspec knows."""

    type: Literal["fsspec"] = Field(description="`fsspec`: object storage; needs `pip install 'ml_pipeline[remote]'`.")
    url: str = Field(
        pattern=r"^[a-z][a-z0-9+.-]*://", description="Folder of the run folders: `s3://bucket/runs`, `gs://`, `hf://`."
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="Options of that file system; never secrets, which it finds by itself."
    )
    timeout_s: float = Field(60, gt=0, description="Longest wait for an answer, in s, where the file system has one.")
    filter: str = Field("*", description=_FILTER_MEANING)
    run_prefix: str = Field(DEFAULT_RUN_PREFIX, pattern=r"^[^/\x00]*$", description=_PREFIX_MEANING)

    @field_validator("url")
    @classmethod
    def _no_login(cls, value: str) -> str:
        return without_secrets(value, LOGIN_OF_FILE_SYSTEM)

    @field_validator("options")
    @classmethod
    def _no_secrets(cls, value: dict[str, Any]) -> dict[str, Any]:
        if found := secrets_in("", value):
            raise ValueError(
                f"what looks like a secret ({', '.join(found)}) does not belong here. {LOGIN_OF_FILE_SYSTEM}"
            )
        return value


def without_secrets(url: str, remedy: str) -> str:
    """The address, unless it holds a login or a token; raises ValueError with where to put it instead."""
    if found := secrets_in(url, {}):
        raise ValueError(f"holds a login ({', '.join(found)}), which does not belong here. {remedy}")
    return url


AnySource = Annotated[LocalSource | SshSource | FsspecSource, Field(discriminator="type")]


def described(source: LocalSource | SshSource | FsspecSource, absolute: Callable[[Path], Path]) -> str:
    """Where a source looks, for messages."""
    if isinstance(source, FsspecSource):
        return shown_url(source.url)
    return f"{source.host}:{source.path}" if isinstance(source, SshSource) else str(absolute(source.path))

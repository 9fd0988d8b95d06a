"""Checkpoints on other machines, read by SFTP: no remote shell, no ssh binary.

`SshFolder` is the source. Beneath it: `route` (which machines), `connection` (a verified, shared connection), `trust`
and `keys` (whom we trust, and as whom we come), `session` (many requests at once), `protocol` (bytes), `listing` and
`reader` (what is done with them).
"""

from ml_pipeline.checkpoints.ssh.folder import SshFolder

__all__ = ["SshFolder"]

"""A model that answers on the host where it was trained: mlx_lm.server, started over SSH or as a child process."""

from ml_pipeline.backends.guarded.local_launcher import LocalLauncher
from ml_pipeline.backends.mlx_server.backend import MlxServerBackend
from ml_pipeline.backends.mlx_server.ssh_launcher import SshLauncher

__all__ = ["LocalLauncher", "MlxServerBackend", "SshLauncher"]

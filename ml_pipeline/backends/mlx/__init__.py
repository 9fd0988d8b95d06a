"""Answers by mlx-lm in this process: `MlxBackend`. Nothing of mlx is imported before one is made."""

from ml_pipeline.backends.mlx.backend import MlxBackend

__all__ = ["MlxBackend"]

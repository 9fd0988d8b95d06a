"""Answers by llama.cpp in this process: `LlamaCppBackend`."""

from ml_pipeline.backends.llama_cpp.backend import LlamaCppBackend
from ml_pipeline.backends.llama_cpp.decoded import decoded_weights

__all__ = ["LlamaCppBackend", "decoded_weights"]

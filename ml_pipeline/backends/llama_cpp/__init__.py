"""Answers by llama.cpp in this process: `LlamaCppBackend`."""

from ml_pipeline.backends.llama_cpp.backend import LlamaCppBackend

__all__ = ["LlamaCppBackend"]

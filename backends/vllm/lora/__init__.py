"""vLLM's adapters (LoRA): `adapters.py` checks, loads and unloads them, `probe.py` says how a loaded one is held
against its base.

May import: backends.endpoint, backends.engine, backends.errors, backends.http, backends.model_files,
backends.vllm.config.
"""

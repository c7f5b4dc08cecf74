"""Tool environments: what commands need beside the gateway (PyTorch, the converter, the quantiser, LLaMA-Factory's
templates, charts) in virtual environments of their own, made on first use from lock files, and run as child processes.

May import: backends.process.
"""

"""LLaMA-Factory's API server as a way to start this gateway: its flags and files, and what each of them becomes in the
configuration. Pure but for the files that are named in it; the verb `api` does what it says.

May import: app.conversion, app.reference, app.whole_file, backends.huggingface.cache, backends.toolenv,
backends.vllm.argv.
"""

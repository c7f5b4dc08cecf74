"""From a fine-tuned folder to one GGUF file: `model_folder.py` says what a folder holds and what is wrong with it,
`convert.py` is the whole way. The work itself is done by programs in tool environments (`children`).

May import: app.supervisor.capacity.devices, backends.huggingface.cache, backends.huggingface.fetcher,
backends.llama_cpp.gguf_contents, backends.llama_cpp.gguf_header, backends.model_files, backends.toolenv.
"""

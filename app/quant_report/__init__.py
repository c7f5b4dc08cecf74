"""What quantising a model cost: the unquantised GGUF file and its quantised forms, measured on the same text.

`files.py` makes the files, `passages.py` reads the text, `windows.py` cuts it, `measuring.py` asks the children (the
engine as it serves, and every logit), `figures.py` and `lower_bounds.py` make figures of what they say, `choice.py`
recommends, `rendering.py` shows; `report.py` is the whole way.

May import: app.conversion, app.statistics.intervals, app.supervisor.capacity.devices, app.whole_file,
backends.llama_cpp.gguf_contents, backends.llama_cpp.gguf_header, backends.llama_cpp.likelihood.library,
backends.model_files.digests, backends.process.cores, backends.toolenv.
"""

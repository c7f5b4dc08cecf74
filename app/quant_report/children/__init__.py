"""Scripts that run in processes of their own, by path: of ours they import no more than llama.cpp's
library. JSON in, JSON lines out.

May import: backends.llama_cpp.likelihood.library.
"""

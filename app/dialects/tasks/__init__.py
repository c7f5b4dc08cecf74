"""What engines do besides writing text: rerank, score, tokenize, detokenize, and show the prompt of a chat.
Clients and engines are spoken to in vLLM's shape; `llama_cpp.py` translates for llama.cpp's server.

May import: app.dialects, app.errors, backends.engine_profile, backends.errors, backends.prompt_too_long.
"""

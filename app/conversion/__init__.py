"""From a fine-tuned folder to one GGUF file: `model_folder.py` says what a folder holds and what is wrong with it.

May import: backends.model_files.
"""

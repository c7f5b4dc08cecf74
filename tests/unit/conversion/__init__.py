"""From a folder to a GGUF file, as far as it needs no tool environment."""

"""What prompt a model was trained on, and how exactly that is served. `reference.py` is the door; `child.py` runs in a
tool environment, with LLaMA-Factory's own code; everything else is pure or reads files.

May import: backends.toolenv.
"""

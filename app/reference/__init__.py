"""What prompt a model was trained on, and how exactly that is served. `reference.py` is the door; everything else
is pure or reads files.

May import: nothing.
"""

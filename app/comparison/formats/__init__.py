"""Files of questions as other programs write them: which format a file has, and its questions. `files.py` is the door
and reads the file; everything else is pure.

May import: app.comparison.
"""

"""Usage records: what is kept of every model request (`record.py`), and the files in the state folder by which relays
hand them to the supervisor, whatever becomes of either (`segments.py` writes, `segment_reader.py` reads).

May import: nothing.
"""

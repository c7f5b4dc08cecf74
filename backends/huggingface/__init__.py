"""Models of the Hugging Face hub: `fetcher.py` runs the download, `child.py` is the process that does it, `cache.py`
says what is on this machine already.

May import: backends.engine, backends.process.
"""

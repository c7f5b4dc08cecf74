"""Going on with a stream whose engine has failed: which requests may (`permission.py`), the tokens that were told until
then (`token_record.py`), where another engine begins (`seam.py`), and what it writes as chunks of the first stream
(`continued_chunks.py`). Pure.

May import: app.dialects, backends.engine_profile, backends.errors.
"""

"""Questions as files that other programs evaluate models with: EvalScope, lm-eval. `export.py` is the door and writes
them; everything else is pure.

May import: app.comparison, app.whole_file.
"""

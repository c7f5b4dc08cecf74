"""A comparison's report: `contents.py` is what it consists of, as JSON, Markdown and HTML. Pure.

May import: app.comparison.analysis.findings.
"""

"""A comparison's report: `contents.py` is what it consists of; stored as JSON, shown as Markdown and HTML. Pure.

May import: app.comparison.analysis.findings, app.comparison.model_answer, app.comparison.question,
app.comparison.scores.
"""

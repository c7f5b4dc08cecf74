"""What a comparison's answers say: noise floor, contrasts, verdicts, the largest changes. Pure.

`analyse.py` is the whole way; `findings.py` is what comes out of it.

May import: app.comparison.model_answer, app.comparison.question, app.comparison.scores, app.statistics.families,
app.statistics.intervals, app.statistics.paired, app.statistics.power.
"""

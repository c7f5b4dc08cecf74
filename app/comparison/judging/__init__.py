"""Which of two answers is better: what a judge model is asked, whether its judgements are worth anything, and votes of
people who do not know whose answer is whose. Pure.

May import: app.comparison, app.statistics.
"""

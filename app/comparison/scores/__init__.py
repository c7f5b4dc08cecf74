"""How good one answer is: the measures, and each answer's scores. Pure.

May import: app.comparison.
"""

"""What a comparison's answers say: noise floor, contrasts, verdicts, the largest changes. Pure.

May import: nothing.
"""

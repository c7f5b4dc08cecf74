"""Comparing models on the same questions: what the tuning changed.

May import: nothing.
"""

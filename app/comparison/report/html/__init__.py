"""The report as one HTML file: `page.py` puts it together, `markup.py` escapes, `report.css` is its style. Pure.

May import: app.comparison.analysis.findings, app.comparison.report.
"""

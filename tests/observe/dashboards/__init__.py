"""The Grafana dashboards as code: `python -m tests.observe.dashboards.write` writes docker/grafana/dashboards/*.json.

`panels.py` is what a panel is, `series.py` how series are asked for; one file for each dashboard.
"""

"""`/metrics/engines`: what engines themselves show to Prometheus, asked for (`engine_scrape.py`), read strictly and
written anew (`text_format.py`, pure).

May import: backends.endpoint, backends.errors, backends.http.probe_client.
"""

"""The queue before an engine that takes only so many requests at a time: `gate.py` gives out the permits, `shares.py`
says whose turn it is, `service_times.py` how long a wait is going to be; `queue_counts.py` is what is counted of it.

May import: app.supervisor.metrics.bucket_counts.
"""

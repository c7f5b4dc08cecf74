"""The benchmark: the gateway against nginx and against nothing in between, measured in the same run. `calls.py` counts
instead: how much of our code runs for one event, and for one request.
"""

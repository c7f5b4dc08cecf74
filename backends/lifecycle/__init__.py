"""When an engine is started, waited for, restarted and given up: `machine.py` is one pure function from a life and an
event to the next life and the actions to take, `events.py` its words.

May import: backends.endpoint.
"""

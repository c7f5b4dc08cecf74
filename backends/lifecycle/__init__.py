"""When an engine is started, waited for, restarted and given up: `machine.py` is one pure function from a life and an
event to the next life and the actions to take, with its transition table at the head (`attached.py`: of engines that
somebody else runs); `phases.py` says what a life consists of, `events.py` what happens to it and what is done about it.

May import: backends.endpoint.
"""

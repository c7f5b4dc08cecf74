"""Whether what is served is what was trained: observations of a served model, held against a reference and against each
other. Pure, but for `certify.py`, which asks the running gateway by a function that it is given, and for
`expectation.py`, which reads files.

May import: app.conversion, app.reference, backends.model_files.
"""

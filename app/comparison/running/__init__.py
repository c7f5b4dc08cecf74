"""A comparison as it runs: the questions of a file are asked of each model over the gateway, every answer is written
down as it comes, and a run that was ended goes on where it was. Files and the network; what answers mean is decided in
the folders beside this one.

May import: app.comparison, app.certificate, app.dialects.sse, app.whole_file.
"""

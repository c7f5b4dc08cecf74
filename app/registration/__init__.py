"""From a folder that was tuned to models that are served: `modelport register`, and the Modelfiles of Ollama.

What is decided is decided by pure functions; what is done is written down before it is done (`journal.py`), so that a
run that was killed is finished by the next, and `unregister` removes what `register` made and nothing else.

May import: app.config.yaml_edit, app.config.yaml_document, app.reference.chats, app.whole_file,
backends.model_files.digests, backends.ollama.names.
"""

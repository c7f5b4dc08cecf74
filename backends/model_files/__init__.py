"""Files of weights, read without the libraries that wrote them: `safetensors.py` says which tensors are in a file,
`values.py` whether their numbers are sound, `digests.py` whether they are the same, `adapter_file.py` whether an
adapter can do on its base what it was trained for (`adapter_settings.py`: by what it says of itself). They read what
they need and load no model.

May import: nothing.
"""

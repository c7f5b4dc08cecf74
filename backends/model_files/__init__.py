"""Files of weights, read without the libraries that wrote them: `safetensors.py` says which tensors are in a file,
`values.py` whether their numbers are sound. Both read what they need and load no model.

May import: nothing.
"""

"""A folder for `PYTHONPATH`: the module `pynvml` in it takes the place of nvidia-ml-py's in a gateway's process."""

"""The benchmark: the gateway against nginx and against nothing in between, measured in the same run."""

"""One question to several models: what is the same for all, what is refused, what comes back, what stays hidden."""

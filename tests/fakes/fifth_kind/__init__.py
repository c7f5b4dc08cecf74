"""A kind of engine that the gateway does not have: an OpenAI server on this machine with two names of its own."""

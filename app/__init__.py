"""What a client and an operator see: the command line, the supervisor, the relays and their dialects."""

__version__ = "0.1.0"

"""What clients and engines say to each other: pure functions."""

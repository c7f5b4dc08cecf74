"""What an operator writes, and what is said of it when it is wrong."""

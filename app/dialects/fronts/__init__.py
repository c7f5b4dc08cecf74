"""Clients that speak another dialect than OpenAI's: their requests as OpenAI's, OpenAI's answers as theirs. Pure."""

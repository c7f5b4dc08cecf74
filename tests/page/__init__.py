"""The page in a real Chromium, before a real gateway; a make target of its own (`make test-page`)."""

"""Container files: what they say, and what comes of it when they are followed."""

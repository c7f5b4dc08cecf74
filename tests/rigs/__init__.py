"""Parts of the gateway set up for a test, and what reads and measures what comes out of them."""

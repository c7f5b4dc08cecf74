"""Tests of one part each, by the folder of the code that they test; `house` holds for all of them."""

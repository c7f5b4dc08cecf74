"""Tests of app/registration."""

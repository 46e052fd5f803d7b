"""Intervals and tests that several commands share."""

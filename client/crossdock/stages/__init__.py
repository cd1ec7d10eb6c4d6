"""Staged jobs: what runs when, on what, and with which share of the data."""

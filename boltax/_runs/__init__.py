"""Runs as their folders have them, read without a trainer: beside each other, and as a page."""

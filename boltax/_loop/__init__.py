"""The order of a run, from its first line to its last. Read `_fit.py` first."""

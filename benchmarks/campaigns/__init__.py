"""The campaigns of `benchmarks/reliability.py`; the tests run short versions of the same code."""

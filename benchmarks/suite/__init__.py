"""The parts of `benchmarks/speed.py`: tasks, models, one file for each side, and the driver."""

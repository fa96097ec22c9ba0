"""The parts of `optimizers.py`: what is compared, one training, the tables, the figure."""

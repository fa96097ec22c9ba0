"""This process and machine: memory, what is compiled and kept, signals, where the time goes."""

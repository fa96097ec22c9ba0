"""A trained model leaves: a program and its weights in a folder that needs JAX alone."""

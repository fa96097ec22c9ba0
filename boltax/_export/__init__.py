"""A trained model leaves: a program and its weights in a folder that need no boltax."""

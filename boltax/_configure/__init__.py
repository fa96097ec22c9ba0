"""A run from a file and the command line: a file is only arguments, of constructors and loaders."""

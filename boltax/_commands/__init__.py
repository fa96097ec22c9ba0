"""The commands of `boltax`, a file each: what it takes, and what it calls."""

"""`python -m boltax` does what the command `boltax` does."""

import sys

from boltax.cli import main

if __name__ == "__main__":
    sys.exit(main())

"""Where arrays live: meshes of devices, and the placement of state and batches on them."""

from boltax.parallel._parallel import Parallel

__all__ = ["Parallel"]

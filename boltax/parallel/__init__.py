"""Where arrays live: meshes of devices, the placement of a run on them, the processes of a job."""

from boltax.parallel._parallel import Parallel
from boltax.parallel._processes import initialize

__all__ = ["Parallel", "initialize"]

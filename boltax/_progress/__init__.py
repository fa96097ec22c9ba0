"""Progress of a run as a person sees it: bars in a terminal or notebook, plain lines elsewhere."""

from boltax._progress._progress import Progress, advance_examples, set_metrics
from boltax._progress._tracked import Tracked

__all__ = ["Progress", "Tracked", "advance_examples", "set_metrics"]

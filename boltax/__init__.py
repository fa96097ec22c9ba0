"""boltax: subclass one class, write the loss of your model, and get everything around it.

    import boltax as bx

    class Classifier(bx.TrainerModule):
        def loss_function(self, model, batch, train):
            ...
            return loss, {"acc": logits.argmax(-1) == labels}

`boltax.data`, `boltax.metrics`, `boltax.optim`, `boltax.loggers`, `boltax.callbacks` hold the
parts; `boltax.errors` every exception. `boltax.tune`, `boltax.testing` and the other packages are
loaded when they are asked for.
"""

import typing as _typing

from boltax import callbacks, data, errors, loggers, metrics, optim
from boltax._base._evaluation import Evaluation
from boltax._base._options import SWA, CheckpointOptions, LoopOptions
from boltax._base._triggers import Every
from boltax._inspect._found import Preflight
from boltax._inspect._lr_find import LearningRateTest
from boltax._process._allocator import install as _keep_memory
from boltax._step._state import TrainState
from boltax.parallel._parallel import Parallel
from boltax.trainer import TrainerModule

if _typing.TYPE_CHECKING:  # with a `__getattr__` in sight, no misspelt name would be found
    from boltax import checkpoint as checkpoint
    from boltax import demo as demo
    from boltax import models as models
    from boltax import parallel as parallel
    from boltax import testing as testing
    from boltax import tune as tune
else:
    from boltax._base._on_demand import load as __getattr__  # noqa: F401 - Python calls it
    from boltax._base._on_demand import names as __dir__  # noqa: F401 - and this

__version__ = "0.1.0"

_keep_memory()  # may be left out; before JAX's CPU backend has started its threads

__all__ = [
    "SWA",
    "CheckpointOptions",
    "Evaluation",
    "Every",
    "LearningRateTest",
    "LoopOptions",
    "Parallel",
    "Preflight",
    "TrainState",
    "TrainerModule",
    "callbacks",
    "data",
    "errors",
    "loggers",
    "metrics",
    "optim",
]

"""Models of Flax Linen, Flax NNX, Equinox and plain functions behind one interface.

`adapt` makes the adapter of a model class, `ModelView` is the `model` that a loss function calls,
`BoundModel` is a model with its parameters for inference. `dropout` is a layer whose rate may be
traced. `Vmap` maps a model of one example over the batch, `Functional` is a pair of plain
functions, `Lora` trains low-rank pairs beside weights that stay.
"""

from boltax.models._adapter import ModelAdapter, adapt
from boltax.models._bound import BoundModel
from boltax.models._calls import Call
from boltax.models._dropout import dropout
from boltax.models._functional import Functional
from boltax.models._lora import Lora
from boltax.models._summary import summarize
from boltax.models._variables_table import summarize_variables
from boltax.models._view import ModelView
from boltax.models._vmap import Vmap

__all__ = [
    "BoundModel",
    "Call",
    "Functional",
    "Lora",
    "ModelAdapter",
    "ModelView",
    "Vmap",
    "adapt",
    "dropout",
    "summarize",
    "summarize_variables",
]

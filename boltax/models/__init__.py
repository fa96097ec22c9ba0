"""Models of Flax Linen and Flax NNX behind one interface.

`adapt` makes the adapter of a model class, `ModelView` is the `model` that a loss function calls,
`BoundModel` is a model with its parameters for inference. `dropout` is a layer whose rate may be
traced. Other model libraries join by an adapter of their own.
"""

from boltax.models._adapter import ModelAdapter, adapt
from boltax.models._bound import BoundModel
from boltax.models._calls import Call
from boltax.models._dropout import dropout
from boltax.models._summary import summarize, summarize_variables
from boltax.models._view import ModelView

__all__ = [
    "BoundModel",
    "Call",
    "ModelAdapter",
    "ModelView",
    "adapt",
    "dropout",
    "summarize",
    "summarize_variables",
]

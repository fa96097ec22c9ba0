"""Callbacks: what a run does beside training, each in an object of its own.

A callback sees a frozen `View` of the run and answers with requests; it changes nothing by itself.

    import boltax as bx
    from boltax.callbacks import Callback, EarlyStopping, Log, View

    class WeightNorm(Callback):
        def on_validation_epoch_end(self, view: View) -> Log:
            return Log({"weight_norm": optax.tree.norm(view.state.params)})

    Classifier(..., callbacks=[EarlyStopping("val/loss"), WeightNorm()])
"""

from boltax.callbacks._base import Callback, Log, Request, Save, Stop, View
from boltax.callbacks._early_stopping import EarlyStopping
from boltax.callbacks._learning_rate import LearningRateMonitor
from boltax.callbacks._log_figure import LogFigure
from boltax.callbacks._model_summary import ModelSummary
from boltax.callbacks._profiler import Profiler
from boltax.callbacks._timer import Timer

__all__ = [
    "Callback",
    "EarlyStopping",
    "LearningRateMonitor",
    "Log",
    "LogFigure",
    "ModelSummary",
    "Profiler",
    "Request",
    "Save",
    "Stop",
    "Timer",
    "View",
]

"""Where the records of a run go: TensorBoard, W&B, MLflow, CSV, several at once, or your own."""

from boltax.loggers._base import Logger, NoLogger
from boltax.loggers._create import create_loggers
from boltax.loggers._csv import CsvLogger
from boltax.loggers._foreign import ForeignLogger
from boltax.loggers._group import LoggerGroup
from boltax.loggers._history import History
from boltax.loggers._mlflow import MlflowLogger
from boltax.loggers._tensorboard import TensorBoardLogger
from boltax.loggers._wandb import WandbLogger

__all__ = [
    "CsvLogger",
    "ForeignLogger",
    "History",
    "Logger",
    "LoggerGroup",
    "MlflowLogger",
    "NoLogger",
    "TensorBoardLogger",
    "WandbLogger",
    "create_loggers",
]

"""Tuning: many trainings as one more axis of the same compiled step.

from boltax.tune import Population, SuccessiveHalving

members = [{"seed": seed, "lr": lr} for seed in range(4) for lr in (1e-3, 3e-3, 1e-2)]
population = Population(trainer, members, scheduler=SuccessiveHalving(("val/acc", "max")))
table = population.train_model(train_loader, val_loader, num_epochs=16)
trainer = population.member(table.best()["member"])
"""

from boltax.tune._configuration import load_configuration, save_configuration
from boltax.tune._cross_validate import CrossValidation, cross_validate
from boltax.tune._ensemble import Ensemble
from boltax.tune._population import Population
from boltax.tune._predictions import Predictions
from boltax.tune._ray import as_ray_trainable
from boltax.tune._schedulers import (
    Member,
    Overwrite,
    PopulationBasedTraining,
    PopulationView,
    Replace,
    Request,
    Scheduler,
    Status,
    Stop,
    SuccessiveHalving,
)
from boltax.tune._storage import open_storage
from boltax.tune._study import optimize
from boltax.tune._table import Table

__all__ = [
    "CrossValidation",
    "Ensemble",
    "Member",
    "Overwrite",
    "Population",
    "PopulationBasedTraining",
    "PopulationView",
    "Predictions",
    "Replace",
    "Request",
    "Scheduler",
    "Status",
    "Stop",
    "SuccessiveHalving",
    "Table",
    "as_ray_trainable",
    "cross_validate",
    "load_configuration",
    "open_storage",
    "optimize",
    "save_configuration",
]

"""What `boltax tune` does: a study of a trainer in the user's file, or its best trained again."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boltax._process._user_files import find_in_file
from boltax.errors import ConfigurationError
from boltax.trainer import TrainerModule
from boltax.tune._configuration import hyperparameters_of, read_configuration, save_configuration
from boltax.tune._space import check_arguments_of, optuna_module, read_space
from boltax.tune._study import SETTINGS, optimize

if TYPE_CHECKING:
    import optuna


PRUNERS = {"median": "MedianPruner", "hyperband": "HyperbandPruner", "none": "NopPruner"}


def tune(options: argparse.Namespace) -> str:
    """Runs the command; returns what there is to say at its end."""
    file = options.file.rpartition(":")[0]
    make_trainer = find_in_file(options.file)

    def find(name: str) -> Any:
        return find_in_file(f"{file}:{name}")

    if options.train is not None:
        return _train(options, make_trainer, find)
    if options.space is None or options.epochs is None:
        raise ConfigurationError(
            "Received a study without --space or --epochs; expected both. Write --space "
            """'{"lr": ("log", 1e-4, 1e-1)}' --epochs 10, or --train BEST.json."""
        )
    space = read_space(options.space, find)
    train_loader, val_loader, _ = _loaders(options, find)
    optuna = optuna_module()
    if options.has_progress:
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # its lines would tear the table
    study = optimize(
        make_trainer,
        space,
        train_loader,
        val_loader,
        num_epochs=options.epochs,
        n_trials=options.trials,
        population=options.population,
        monitor=None if options.monitor is None else tuple(options.monitor),
        sampler=optuna.samplers.TPESampler(seed=options.seed),
        pruner=getattr(optuna.pruners, PRUNERS[options.pruner])(),
        storage=options.storage,
        study_name=options.study_name,
        heartbeat=options.heartbeat,
        enable_progress_bar=options.has_progress,
    )
    save_configuration(study, options.best)
    return _summary(study, options)


def _train(options: argparse.Namespace, make_trainer: Any, find: Callable[[str], Any]) -> str:
    """Trains the best configuration of a study again, with the test set where there is one."""
    known = read_configuration(options.train)
    check_arguments_of(make_trainer, known["hyperparameters"])
    train_loader, val_loader, test_loader = _loaders(options, find)
    trainer: TrainerModule = make_trainer(**known["hyperparameters"])
    metrics = trainer.train_model(
        train_loader, val_loader, test_loader, options.epochs or known.get("num_epochs") or 1
    )
    shown = ", ".join(f"{n} {v:.4g}" for n, v in metrics.items() if isinstance(v, float))
    return f"{trainer.log_dir}: {shown}"


def _loaders(options: argparse.Namespace, find: Callable[[str], Any]) -> tuple[Any, Any, Any]:
    made = find(options.loaders)()
    if not isinstance(made, tuple | list) or len(made) not in (2, 3):
        raise ConfigurationError(
            f"Received {type(made).__name__} from {options.loaders}(); expected loaders for "
            "training and validation, and maybe for a test. Write return train_loader, val_loader."
        )
    return made[0], made[1], made[2] if len(made) == 3 else None


def _summary(study: "optuna.Study", options: argparse.Namespace) -> str:
    best, monitor = study.best_trial, study.user_attrs[SETTINGS]["monitor"]
    again = f"boltax tune {options.file} --train {options.best}"
    if options.loaders != "make_loaders":
        again += f" --loaders {options.loaders}"
    return (
        f"best: trial {best.number}, {monitor[0]} {best.value:.4g}, "
        f"{json.dumps(hyperparameters_of(best))}\n"
        f"written to {Path(options.best)}; train it again: {again}"
    )

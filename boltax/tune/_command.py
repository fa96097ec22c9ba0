"""What `boltax tune` does: a study of a trainer in the user's file, or its best trained again."""

import argparse
import json
from collections.abc import Callable, Mapping
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


Configured = tuple[Callable[..., Any], Mapping[str, Any], tuple[Any, Any, Any]]
PRUNERS = {"median": "MedianPruner", "hyperband": "HyperbandPruner", "none": "NopPruner"}


def tune(options: argparse.Namespace, configured: Configured | None = None) -> str:
    """Runs the command; returns what there is to say at its end.

    Args:
        options: of the command line.
        configured: `make_trainer`, space and loaders, where a configuration has them.
    """
    file = options.file.rpartition(":")[0]
    make_trainer = configured[0] if configured else find_in_file(options.file)

    def find(name: str) -> Any:
        return find_in_file(f"{file}:{name}")

    def loaders() -> tuple[Any, Any, Any]:
        return configured[2] if configured else _loaders(options, find)

    if options.train is not None:
        return _train(options, make_trainer, loaders)
    if (options.space is None and not configured) or options.epochs is None:
        raise ConfigurationError(
            "Received a study without --space or --epochs; expected both. Write --space "
            """'{"lr": ("log", 1e-4, 1e-1)}' --epochs 10, or --train BEST.json."""
        )
    asked: str | None = options.space
    space = configured[1] if configured and asked is None else read_space(asked or "", find)
    train_loader, val_loader, _ = loaders()
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


def _train(options: argparse.Namespace, make_trainer: Any, loaders: Callable[[], Any]) -> str:
    """Trains the best configuration of a study again, with the test set where there is one."""
    known = read_configuration(options.train)
    check_arguments_of(make_trainer, known["hyperparameters"])
    train_loader, val_loader, test_loader = loaders()
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

"""`optimize`: an Optuna study whose trials train side by side, as members of populations.

    def make_trainer(lr, weight_decay, dropout, features):
        return Classifier(
            model_class=MLP,
            model_hparams={"features": features},
            optimizer_hparams={"lr": lr, "weight_decay": weight_decay},
            dropout=dropout,  # loss_function reads it as model.hparams["dropout"]
            exmp_input=next(iter(train_loader)),
        )

    study = optimize(
        make_trainer,
        {"lr": ("log", 1e-4, 1e-1), "weight_decay": ("log", 1e-5, 1e-1), "dropout": (0.0, 0.5),
         "features": [64, 128]},
        train_loader, val_loader, num_epochs=15, n_trials=64, storage="study.journal",
    )
    print(study.best_trial.params)

What happens:

    this worker joins the study                         `_worker`
    until every trial of the study has ended:
        ask for trials, as many as there are places
        sort them into groups that share a program      `_groups`
        the population of the largest group trains      `_search`
            after each validation, for each member:
                report to its trial; is it pruned, diverged, or through? then end the trial,
                and let the next one take its place
        nothing to ask for: wait for the other workers, and take up what they lose
"""

from numbers import Real
from typing import TYPE_CHECKING, Any

from boltax._base._monitor import Monitor, advice, check_form
from boltax._base._triggers import Every
from boltax._base._whole import is_whole
from boltax._build._arguments import whole
from boltax.errors import ConfigurationError
from boltax.parallel._parallel import Parallel, as_parallel
from boltax.tune._groups import MakeTrainer, monitor_of_trainers
from boltax.tune._member_places import member_places
from boltax.tune._members_table import members_table
from boltax.tune._search import Search
from boltax.tune._space import SearchSpace, Space, optuna_module
from boltax.tune._storage import Storage, open_storage
from boltax.tune._worker import Worker

if TYPE_CHECKING:
    import optuna

SETTINGS = "boltax:settings"


def optimize(
    make_trainer: MakeTrainer,
    space: Space,
    train_loader: Any,
    val_loader: Any = None,
    *,
    num_epochs: int,
    n_trials: int,
    population: int = 16,
    parallel: str | Parallel | None = None,
    monitor: Monitor | None = None,
    sampler: "optuna.samplers.BaseSampler | None" = None,
    pruner: "optuna.pruners.BasePruner | None" = None,
    storage: Storage = None,
    study_name: str = "study",
    heartbeat: float = 10.0,
    enable_progress_bar: bool = True,
    validate_every: int | Every | None = None,
) -> "optuna.Study":
    """Searches hyperparameters with Optuna; trials train together, and compile once per shape.

    Trials whose trainers differ only in numbers that are values in the compiled program are members
    of one population: numbers in dicts of `optimizer_hparams`, and extra hyperparameters that are
    floats, which `loss_function` reads as ``model.hparams[name]``. All else (layer sizes, the
    optimizer, whole numbers of the loss) makes a group with a program of its own, compiled once in
    the study. A trial that is pruned or has ended gives its place to the next one.

    A trial's value is that of its best epoch. One whose loss was not finite is pruned. With a
    storage on disk or in a database, any number of processes may call this at the same time, and
    each of them returns when all trials of the study have ended; when one dies, the others take up
    its trials. Calling it again goes on with the study.

    Args:
        make_trainer: from hyperparameters, by name, to the one trainer that it makes. It is called
            for each trial, and most often left at the end of the trainer's checks, before anything
            is built.
        space: from each hyperparameter to ``(low, high)``, ``("log", low, high)``, a list of
            choices, or an Optuna distribution; or a function of the trial that returns the
            hyperparameters.
        train_loader: as for `TrainerModule.train_model`.
        val_loader: likewise; without one, monitor a ``train/`` metric.
        num_epochs: epochs of each trial.
        n_trials: trials that the study shall have, those of earlier calls and of other workers
            included.
        population: trials that train at the same time.
        parallel: a mesh whose axis ``"members"`` the trials lie along; see `Population`.
        monitor: the metric that is optimized, with ``"min"`` or ``"max"``; by default the monitor
            of the trainers that `make_trainer` makes, and where these have none what tells their
            best model: the first that exists of ``val/val_metric``, ``val/acc``, ``val/loss``.
        sampler: of Optuna; its own default.
        pruner: of Optuna; its own default, the median pruner. ``optuna.pruners.NopPruner()``
            prunes nothing.
        storage: None keeps the study in memory; the path of a journal file, a URL
            (``"sqlite:///study.db"``, ``"postgresql://..."``), or a storage of Optuna's.
        study_name: under which the storage keeps it.
        heartbeat: seconds between two signs of life of this worker. The others take it for dead
            when there was none for six times as long.
        enable_progress_bar: whether to show the members that train.
        validate_every: steps between two validations, or ``boltax.Every(steps=...)``, as for
            `TrainerModule.train_model`. Trials then report by their steps, and not by their epochs,
            and pruners compare these.

    Returns:
        The study, with ``best_trial``, ``trials`` and ``trials_dataframe()``.

    Raises:
        ConfigurationError: for arguments that cannot work, a storage that cannot be reached, or a
            study of this name with another space, monitor or number of epochs.
        UnknownNameError: for hyperparameters that `make_trainer` does not take.
        MetricsError: when the monitored metric does not exist.
        MissingExtraError: without Optuna: ``pip install "boltax[tune]"``.

    Example:
        >>> import flax.linen as nn, numpy as np, boltax as bx
        >>> class Regressor(bx.TrainerModule):
        ...     def loss_function(self, model, batch, train):
        ...         return ((model(batch[0]) - batch[1]) ** 2).mean(), {}
        >>> inputs = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
        >>> loader = bx.data.ArrayLoader((inputs, inputs.sum(1, keepdims=True)), batch_size=16)
        >>> def make_trainer(lr):
        ...     return Regressor(
        ...         nn.Dense, {"features": 1}, {"optimizer": "sgd", "lr": lr},
        ...         exmp_input=next(iter(loader)), enable_progress_bar=False,
        ...         logger_params={"logger_type": "none"})
        >>> study = optimize(
        ...     make_trainer, {"lr": ("log", 1e-3, 1e-1)}, loader, loader, num_epochs=2, n_trials=4,
        ...     population=2, monitor=("val/loss", "min"), enable_progress_bar=False)
        >>> len(study.trials), "lr" in study.best_trial.params
        (4, True)
    """
    optuna_module()  # a missing extra is told first
    num_epochs, n_trials = whole("num_epochs", num_epochs), whole("n_trials", n_trials)
    population = whole("population", population)
    mesh = as_parallel(parallel, has_members=True)
    if mesh is not None:
        member_places(mesh, None, min(population, n_trials))
    check_form(monitor)
    _check_heartbeat(heartbeat)
    steps = _steps(validate_every)
    search_space = SearchSpace(space)
    search_space.check_names(make_trainer)
    if monitor is None:
        monitor = monitor_of_trainers(make_trainer, search_space)
    _check_loader(monitor, val_loader)
    settings = {
        "space": search_space.to_json(),
        "monitor": list(monitor),
        "num_epochs": num_epochs,
        "validate_every": steps,
    }
    study = _open_study(storage, study_name, settings, sampler, pruner)
    table = members_table(monitor, num_epochs, n_trials, is_shown=enable_progress_bar)
    worker = Worker(study, search_space, n_trials=n_trials, interval=heartbeat)
    search = Search(
        make_trainer, search_space, worker, table, monitor=monitor, num_epochs=num_epochs,
        population=min(population, n_trials), parallel=mesh, validate_every=steps,
    )  # fmt: skip
    with table, worker:
        while search.has_work():
            search.train_a_group(train_loader, val_loader)
    return study


def _open_study(
    storage: Storage, name: str, settings: dict[str, Any], sampler: Any, pruner: Any
) -> "optuna.Study":
    """The study of a name in a storage, made if there is none.

    Raises:
        ConfigurationError: when there is one of other settings.
    """
    opened = open_storage(storage)
    study: optuna.Study = optuna_module().create_study(
        storage=opened,
        sampler=sampler,
        pruner=pruner,
        study_name=name,
        direction="maximize" if settings["monitor"][1] == "max" else "minimize",
        load_if_exists=True,
    )
    known = study.user_attrs.get(SETTINGS)
    if known is None:
        study.set_user_attr(SETTINGS, settings)
        return study
    for key, value in settings.items():
        if known.get(key) != value:
            raise ConfigurationError(
                f"Received {_difference(key, known.get(key), value)} for the study {name!r}, which "
                f"has {len(study.trials)} trials; expected what it began with. Write another "
                "study_name, or another storage."
            )
    return study


def _difference(key: str, known: Any, given: Any) -> str:
    if isinstance(known, dict) and isinstance(given, dict):
        for name in {**known, **given}:
            if known.get(name) != given.get(name):
                was, new = (_shown(form.get(name)) for form in (known, given))
                return f"a space with {name!r} as {new}, where it was {was},"
    return f"{key}={given!r}, where it was {known!r},"


def _shown(form: Any) -> str:
    if form is None:
        return "nothing"
    arguments = ", ".join(
        f"{name}={value!r}" for name, value in form["attributes"].items() if value
    )
    return f"{form['name']}({arguments})"


def _check_loader(monitor: Monitor, val_loader: Any) -> None:
    if val_loader is None and monitor[0].startswith("val/"):
        raise ConfigurationError(
            f"Received monitor {monitor[0]!r} but no val_loader; expected one to compute it from. "
            f"Write optimize(..., train_loader, val_loader, ...), or {advice('train/loss')}."
        )


def _steps(validate_every: Any) -> int | None:
    """Steps between two validations; None for those of epochs."""
    if validate_every is None:
        return None
    every: Any = validate_every
    if isinstance(every, Every) and every.minutes is None and every.epochs is None:
        every = every.steps
    if is_whole(every, 1):
        return int(every)
    raise ConfigurationError(
        f"Received validate_every={validate_every!r} for a study; expected a number of steps, by "
        "which trials are compared. Write validate_every=500."
    )


def _check_heartbeat(heartbeat: Any) -> None:
    if isinstance(heartbeat, bool) or not isinstance(heartbeat, Real) or heartbeat <= 0:
        raise ConfigurationError(
            f"Received heartbeat={heartbeat!r}; expected seconds, a number above 0."
        )

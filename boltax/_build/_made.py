"""What a trainer has made of its constructor's arguments, under one name that nobody else uses."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from boltax._build._construction import Construction
from boltax._build._copies import Copies
from boltax._build._hooks import Live
from boltax._build._methods import overrides
from boltax._progress._progress import Progress
from boltax._step._bodies import SizeOf
from boltax._step._loss import LossSteps
from boltax._step._steps import Steps
from boltax.checkpoint._constructor_call import ConstructorCall
from boltax.checkpoint._names import Lookup
from boltax.checkpoint._saver import Saver
from boltax.errors import TrainingError
from boltax.models._adapter import ModelAdapter
from boltax.models._calls import Call
from boltax.parallel._parallel import Parallel
from boltax.parallel._placement import Placement, placement_of


@dataclass
class Made:
    """The parts of a trainer that are not its user's: ``trainer._made``.

    Only `boltax.trainer` writes here. All other attributes of a trainer are its user's to read, and
    a subclass may call its own ones whatever it likes.

    Attributes:
        construction: in which way the trainer was constructed.
        call: the constructor's arguments, to be stored.
        trainer_class: the trainer's class.
        progress: what shows progress.
        adapter: the model.
        loss_steps: the pure steps of `loss_function`.
        steps: what the loop calls: compiled steps.
        saver: writes to the disk in the background.
        live: where the state of now lies.
        size_of: how the user counts the examples of a batch; None for the usual way.
        root_key: the root random key, where a user's own steps may change that of the state.
        calls: with what the model was called when it was initialised; None when the user did that.
        summary: the table of the model's layers.
        is_begun: whether the constructor of `TrainerModule` was called.
        parallel: how the run lies on several devices; None for one.
        logger_params: as given to the constructor.
        logger: the loggers that the constructor, or the beginning of a run, has made.
        has_own_loggers: whether they, and the folder, are made by `init_logger` of boltax.
        versions_in: where boltax chooses folders for runs of this trainer; None where its user has
            named one.
        is_described: whether ``hparams.json`` and ``model.txt`` in the folder are this trainer's.
        loaded: the places of the variables that `load_weights` has set since training.
        had_records: whether loggers had written into the folder before this trainer was made.
    """

    construction: Construction
    call: ConstructorCall
    trainer_class: type
    progress: Progress = field(init=False)
    adapter: ModelAdapter = field(init=False)
    loss_steps: LossSteps = field(init=False)
    steps: Steps = field(init=False)
    saver: Saver = field(init=False)
    live: Live = field(default_factory=Live)
    size_of: SizeOf | None = None
    root_key: Any = None
    calls: list[Call] | None = None
    summary: str = ""
    is_begun: bool = False
    parallel: Parallel | None = None
    logger_params: dict[str, Any] = field(default_factory=dict[str, Any])
    logger: Any = None
    has_own_loggers: bool = False
    versions_in: str | None = None
    is_described: bool = False
    loaded: frozenset[tuple[str, ...]] = frozenset()
    had_records: bool = False

    @cached_property
    def copies(self) -> Copies:
        """Copies the state on the device."""
        return Copies(self.placement)

    @cached_property
    def placement(self) -> Placement:
        """Where everything lies; asked first when there is something to place."""
        return placement_of(self.parallel)

    @property
    def name(self) -> str:
        """The name of the trainer's class."""
        return self.trainer_class.__name__

    @property
    def uses_loss_steps(self) -> bool:
        """Whether the steps are made of `loss_function`."""
        return not overrides(self.trainer_class, "create_functions")

    def check_complete(self, method: str) -> None:
        """Refuses what needs a state and a folder for a trainer that is only described.

        Raises:
            TrainingError: for such a trainer.
        """
        if not self.construction.is_complete:
            raise TrainingError(
                f"Received {method} of {self.name} while the trainers of a study are described; "
                "expected a function that makes a trainer and returns it. Leave the training to "
                "the study."
            )

    @property
    def names(self) -> Lookup:
        """Finds functions and classes by the names under which they are stored."""
        return self.call.names

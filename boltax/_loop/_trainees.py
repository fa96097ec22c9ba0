"""What the loop trains: the one state of a run, or the states of the members of a population.

The loop knows the order of things. What differs between a run and a population stands behind the
methods here: how a step is sent off (`Dispatch`), who is told at which moment (`Moments`), and what
a resume checkpoint holds (`Content`). `_single.py` is the run, a group of one;
`boltax/tune/_members.py` is the population.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol

from boltax._base._chunks import Chunk, Plan
from boltax._base._types import Cursor, Loader, Outputs, PyTree, ScalarMetrics, State
from boltax._build._hooks import Hooks
from boltax._build._parts import Parts
from boltax._loop._accumulators import Accumulated, Due
from boltax._loop._run import Run
from boltax._step._steps import Steps
from boltax.checkpoint._resume_checkpoints import Resume, ResumeCheckpoints
from boltax.metrics._accumulate import Metrics


class Loaders(NamedTuple):
    """The loaders as the user gave them."""

    train: Any
    val: Any = None
    test: Any = None


class Saved(NamedTuple):
    """What a resume checkpoint holds beside the counters.

    Attributes:
        arrays: copies that nothing else uses.
        extra: plain JSON.
        late: works out further JSON in the background, from copies of the metrics of the interval
            and of the epoch before it.
        done: comes in the background, when the checkpoint is on disk.
    """

    arrays: dict[str, PyTree]
    extra: dict[str, Any]
    late: Callable[[Accumulated, Accumulated], dict[str, Any]]
    done: Callable[[], None]


class Watch(Protocol):
    """Looks at steps on their way, whether they were finite."""

    def add(self, chunk: Chunk, outputs: Outputs, before: Cursor | None) -> None:
        """Watches steps that were sent off.

        Args:
            chunk: their batches.
            outputs: what the program gave beside its carry.
            before: the cursor before the first.
        """
        ...

    def look(self, *, up_to: int) -> None:
        """Acts on the steps that have arrived, and waits for those up to a step."""
        ...


class Dispatch(Protocol):
    """How steps are sent off for several states, each with an accumulator of its own."""

    @property
    def states(self) -> Sequence[State]:
        """The states that are trained."""
        ...

    def put(self, index: int, state: State) -> None:
        """Replaces a state."""
        ...

    @property
    def steps(self) -> Steps:
        """The compiled steps for the first state, which tell how steps are sent off."""
        ...

    def steps_of(self, index: int) -> Steps:
        """The compiled steps for a state."""
        ...

    def placed(self, chunk: Chunk) -> Sequence[Chunk]:
        """A chunk on each device that is used; states take them in turn."""
        ...

    def send_each(self, number: int, send: Callable[[int], None], *, is_timed: bool) -> None:
        """Sends off for so many states, by their index; one after the other where it is timed."""
        ...

    def compile_ahead(self, loaders: Loaders) -> Future[Any] | None:
        """Begins to compile both steps, where the form of their batches is known.

        Returns:
            What is done when the evaluation step is compiled; None where that has not begun.
        """
        ...

    def prepare(self, first: Chunk, distance: int) -> None:
        """Prepares for batches of this form, before anything is planned."""
        ...

    def plan(self, distance: int, at: int, left: int | None, until_due: int) -> Plan:
        """How the next steps are sent off.

        Args:
            distance: steps to the next event.
            at: the step before them, those counted that were planned and not sent off yet.
            left: steps to the end of the epoch, if known.
            until_due: steps to the next record.
        """
        ...

    def ready(self, chunk: Chunk) -> Chunk:
        """A chunk in the form in which the steps take it; the first one may decide on that."""
        ...

    @property
    def has_record_loop(self) -> bool:
        """Whether the program of several steps ends the intervals of records by itself."""
        ...

    def watch(self) -> Watch:
        """A look at the steps of an epoch, whether they are finite."""
        ...


class Moments(Protocol):
    """What happens at the moments of a run, in their order."""

    def begin(self, loaders: Loaders, steps_per_epoch: int | None) -> None:
        """Makes what is trained as it is before the first step."""
        ...

    def start(self) -> None:
        """Comes where nothing is resumed."""
        ...

    def sanity_states(self) -> Sequence[State]:
        """The states on which one validation batch is tried; none where it is too early to say."""
        ...

    def one_of(self, metrics: Metrics) -> Metrics:
        """The metrics of one member, out of those of the first state."""
        ...

    def check_names(self, names: Collection[str]) -> None:
        """Refuses what follows metrics that a validation does not give."""
        ...

    def check_training_names(self, names: Collection[str]) -> None:
        """Refuses what follows metrics that a training step does not give."""
        ...

    def on_training_start(self) -> None:
        """Comes before the first epoch."""
        ...

    def epochs_left(self) -> int:
        """The epochs that are still to be trained, the running one not counted."""
        ...

    def on_epoch_start(self) -> None:
        """Comes before the steps of an epoch."""
        ...

    def train(self, loader: Loader) -> None:
        """Trains on one pass over the data, and records it."""
        ...

    def next_events(self, step: int) -> Iterator[int]:
        """Steps from `step` to those after which somebody looks at the state."""
        ...

    def after_steps(self) -> None:
        """Comes after each dispatch."""
        ...

    @property
    def must_write_at_once(self) -> bool:
        """Whether a record is written before the next steps are sent off."""
        ...

    def unpack(self, due: Due) -> list[list[Metrics]]:
        """The metrics of records on the host: for each record those of each member."""
        ...

    def on_record(
        self, step: int, metrics: list[Metrics], speed: Mapping[str, float]
    ) -> ScalarMetrics:
        """Hands a record to loggers; returns what the progress bar shows."""
        ...

    def pause(self, metrics: list[Metrics] | None) -> None:
        """Counts the training since the last validation, before one that ends no epoch.

        Args:
            metrics: of each state, on the device; None before the first step.
        """
        ...

    def go_on(self) -> None:
        """Comes after that validation, with its rows in the history."""
        ...

    def is_validation_due(self) -> bool:
        """Whether a validation follows the steps of this epoch."""
        ...

    def validate(self, loader: Loader) -> None:
        """Validates, tells who follows it, and keeps what is best."""
        ...

    def end_epoch(self, *, is_validated: bool) -> ScalarMetrics:
        """Ends an epoch, with its rows in the history; returns what the progress bar shows."""
        ...

    def end_training(self) -> None:
        """Comes after the last epoch."""
        ...

    def test(self, loader: Loader) -> ScalarMetrics:
        """The metrics of what is best on the test set."""
        ...

    def on_exception(self, error: BaseException) -> None:
        """Comes when an exception ends the run."""
        ...

    def close(self) -> None:
        """Gives up what only a run needs."""
        ...


class Content(Protocol):
    """What a resume checkpoint holds beside the counters."""

    def check_whole(self) -> None:
        """Raises where states and counters are not of one moment."""
        ...

    def content(self) -> Saved:
        """All that is saved, as it is now."""
        ...

    def find(self, checkpoints: ResumeCheckpoints, step: int | None) -> Resume | None:
        """Reads a checkpoint whose arrays fit what is trained; None when there is none."""
        ...

    def keep_schedule(self, steps: int) -> None:
        """Lays the schedule of the learning rate out over so many steps, before `take`."""
        ...

    def take(self, found: Resume) -> None:
        """Goes on with what a checkpoint holds."""
        ...


class Trainees(Dispatch, Moments, Content, Protocol):
    """What the loop trains."""

    @property
    def hooks(self) -> Hooks:
        """The methods of the trainer."""
        ...

    @property
    def parts(self) -> Parts:
        """What the run is made of."""
        ...

    @property
    def run(self) -> Run:
        """The counters, limits and clocks of the run."""
        ...

"""What a running population is on the host: members, who lies in which row, counters."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jax

from boltax._base._monitor import GUIDE_ORDER, Monitor
from boltax._base._triggers import Every
from boltax._base._types import Cursor
from boltax._process._ledger import Ledger
from boltax._process._signals import Signals
from boltax._step._steps import Steps
from boltax.checkpoint._saver import Saver
from boltax.data._source import Source
from boltax.metrics._accumulate import Metrics, SavedMetrics
from boltax.parallel._devices import Device
from boltax.tune._lanes import Lanes
from boltax.tune._rows import Batches, Rows
from boltax.tune._schedulers import Member, PopulationView, Scheduler
from boltax.tune._states import MemberStates
from boltax.tune._values import Varied

if TYPE_CHECKING:
    from boltax.trainer import TrainerModule

EMPTY = -1
"""In place of a member's number: a row that fills up the last group."""


@dataclass(frozen=True)
class Layout:
    """How members lie on the devices, and what that costs.

    Attributes:
        size: members in a group; 1 for members in turn, each with the trainer's own step.
        devices: how many; groups lie on them one after the other, and again from the first.
        lanes: groups that go off side by side, see `Lanes`; more than one on one device only.
        seconds: of a step of a group on each device and in each lane, as it was measured; 0 when it
            was not.
        compile_seconds: what a program for such a group took to compile; 0 when unknown.
    """

    size: int
    devices: int = 1
    seconds: float = 0.0
    compile_seconds: float = 0.0
    lanes: int = 1

    @property
    def places(self) -> int:
        """Groups that train at the same time."""
        return self.devices * self.lanes


@dataclass
class PopulationRun:
    """A population on its way.

    Attributes:
        trainer: whose step the members share.
        varied: the hyperparameters that differ.
        maker: makes states.
        scheduler: asked after each validation.
        num_epochs: epochs of each member.
        total_steps: steps of each member; None when unknown.
        source: the training data.
        val_source: the validation data; None without.
        make_steps: the compiled steps for groups of a size on a device.
        wanted: members in a program, where the user says how many.
        devices: the devices that may be used.
        memory: bytes of the first of them, of a CPU those that were left before members lay on it;
            None when unknown.
        is_spread: whether the user says that all of them are used.
        is_checked: whether the size that the user gives needs no look at the memory any more.
        layout: how members lie on the devices; None while that is not decided.
        members: all members that there ever were, by number.
        given: the members as the user gave them, as plain JSON.
        occupants: the number of the member in each row.
        states: the groups of states.
        best: the groups of the variables at each member's best validation.
        metrics: the groups of metrics of the running epoch; None before its first step.
        epoch: passes over the training data, the running one counted.
        step: steps of the population in all passes, each one a step of every member.
        cursor: the place in the data of the last consumed batch.
        is_resumed: whether the data have to be brought to this place.
        is_trained: whether the steps of the running pass are done and counted for the members.
        is_saveable: whether all of this is that of one moment.
        in_pass: the numbers of the members that trained in the running pass.
        history: one row for each epoch of each member.
        written: the numbers of members whose best model is on the disk.
        started: `time.monotonic()` at the start, less what was trained before a resume.
    """

    trainer: "TrainerModule"
    varied: Varied
    maker: MemberStates
    scheduler: Scheduler
    num_epochs: int
    total_steps: int | None
    source: Source
    val_source: Source | None
    make_steps: Callable[[int, Device], Steps]
    wanted: int | None
    devices: tuple[Device, ...]
    memory: int | None
    is_spread: bool
    members: list[Member]
    given: list[dict[str, Any]]
    is_checked: bool = False
    layout: Layout | None = None
    occupants: list[int] = field(default_factory=list[int])
    states: list[Any] = field(default_factory=list[Any])
    best: list[Any] = field(default_factory=list[Any])
    metrics: list[Metrics | SavedMetrics] | None = None
    epoch: int = 0
    step: int = 0
    cursor: Cursor | None = None
    is_resumed: bool = False
    is_trained: bool = True
    is_saveable: bool = False
    in_pass: tuple[int, ...] = ()
    history: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    written: set[int] = field(default_factory=set[int])
    rows: Rows = field(default_factory=Rows)
    batches: Batches = field(default_factory=Batches)
    lanes: Lanes = field(default_factory=Lanes)
    saver: Saver = field(default_factory=Saver)
    signals: Signals = field(default_factory=Signals)
    ledger: Ledger = field(default_factory=Ledger)
    save_trigger: Every = field(default_factory=Every)
    saved_at: float = field(default_factory=time.monotonic)
    started: float = field(default_factory=time.monotonic)

    @property
    def size(self) -> int:
        """Members in a group."""
        return 1 if self.layout is None else self.layout.size

    @property
    def used(self) -> tuple[Device, ...]:
        """The devices on which groups lie, one after the other."""
        return self.devices[: 1 if self.layout is None else self.layout.devices]

    def device_of(self, index: int) -> Device:
        """The device of a group."""
        return self.used[index % len(self.used)]

    @property
    def steps(self) -> Steps:
        """The compiled steps for the groups on the first device, which tell how to send them."""
        return self.make_steps(self.size, self.devices[0])

    def steps_of(self, index: int) -> Steps:
        """The compiled steps for a group."""
        return self.make_steps(self.size, self.device_of(index))

    @property
    def training(self) -> list[Member]:
        """The members that have not ended."""
        return [member for member in self.members if member.is_training]

    @property
    def passes_left(self) -> int:
        """Passes until the last member has trained for its epochs."""
        return max((self.num_epochs - member.epoch for member in self.training), default=0)

    def send_each(self, send: Callable[[int], None], *, is_timed: bool) -> None:
        """Sends off steps of each group, by its index; one after the other where they are timed."""
        lanes = 1 if is_timed or self.layout is None else self.layout.lanes
        self.lanes.each(len(self.states), send, lanes, self.devices[0])

    def row_of(self, number: int) -> int:
        """The row of a member, which has one."""
        return self.occupants.index(number)

    def has_row(self, number: int) -> bool:
        """Whether a member lies on the device."""
        return number in self.occupants

    def group(self, index: int) -> list[int]:
        """The numbers of the members in a group, `EMPTY` where there is none."""
        part = self.occupants[index * self.size : (index + 1) * self.size]
        return part + [EMPTY] * (self.size - len(part))

    def view(self) -> PopulationView:
        """The population as a scheduler sees it."""
        return PopulationView(
            epoch=self.epoch, num_epochs=self.num_epochs, members=tuple(self.members)
        )


def monitors(run: PopulationRun) -> tuple[Monitor, ...]:
    """What tells which of two epochs of members is better."""
    if run.trainer.monitor:
        return (run.trainer.monitor,)
    return tuple(GUIDE_ORDER) if run.val_source is not None else (("train/loss", "min"),)


def validation_metrics(trainer: "TrainerModule") -> dict[str, Any]:
    """The metrics that a validation will give, as shapes; none where only a validation can tell."""
    if not trainer._made.uses_loss_steps:  # the example is that of the model, and no batch
        return {}
    metrics = jax.eval_shape(trainer.eval_step, trainer.state, trainer.exmp_input)
    return {f"val/{name}": form for name, form in metrics.items()}

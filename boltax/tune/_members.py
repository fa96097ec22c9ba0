"""The members of a population on their way: who lies in which row, and how their steps go off."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax

from boltax._base._chunks import Chunk
from boltax._base._monitor import GUIDE_ORDER, Monitor, followed_of
from boltax._build._hooks import Live
from boltax._build._methods import overrides
from boltax._build._parts import Parts
from boltax._loop._derived import derived_names
from boltax._loop._run import Run
from boltax._step._steps import Steps
from boltax.metrics._accumulate import Metrics
from boltax.parallel._parallel import Parallel
from boltax.parallel._places import Place, first_of, placement_at
from boltax.trainer import TrainerModule
from boltax.tune._lanes import Lanes
from boltax.tune._layouts import EMPTY, Layout
from boltax.tune._member_rows import Batches, MemberRows
from boltax.tune._schedulers import Member, PopulationView, Scheduler
from boltax.tune._states import MemberStates
from boltax.tune._values import Varied


@dataclass
class Members:
    """The members, their states on the devices, and where each lies.

    Attributes:
        hooks: the trainer whose step the members share; its state is that of no member.
        live: where the trainer finds its state.
        parts: what it is made of.
        run: counters, limits and clocks of the population. Its steps are those of all passes, each
            one a step of every member.
        varied: the hyperparameters that differ.
        maker: makes states.
        scheduler: asked after each validation.
        make_steps: the compiled steps for groups of a size on a place.
        wanted: members in a program, where the user says how many.
        places: where groups may lie: devices, or parts of a mesh.
        parallel: what the user says of the mesh; None for devices, each a place.
        memory: bytes of the first device, of a CPU those that were left before members lay on it;
            None when unknown.
        is_spread: whether the user says that all of them are used.
        members: all members that there ever were, by number.
        given: the members as the user gave them, as plain JSON.
        fresh: members that have no state yet.
        is_checked: whether the size that the user gives needs no look at the memory any more.
        layout: how members lie on the places; None while that is not decided.
        occupants: the number of the member in each row.
        states: the groups of states.
        best: the groups of the variables at each member's best validation.
        in_pass: the numbers of the members that trained in the running pass.
        written: the numbers of members whose best model is on the disk.
        counted: what members have counted by a resume checkpoint within an epoch.
        asked: passes and steps that were done when the scheduler was last asked.
        is_whole: whether all of this is that of one moment.
        is_validated: whether there are validation data.
    """

    hooks: TrainerModule
    live: Live
    parts: Parts
    run: Run
    varied: Varied
    maker: MemberStates
    scheduler: Scheduler
    make_steps: Callable[[int, Place], Steps]
    wanted: int | None
    places: tuple[Place, ...]
    parallel: Parallel | None
    memory: int | None
    is_spread: bool
    members: list[Member]
    given: list[dict[str, Any]]
    fresh: list[Member]
    is_checked: bool = False
    layout: Layout | None = None
    occupants: list[int] = field(default_factory=list[int])
    states: list[Any] = field(default_factory=list[Any])
    best: list[Any] = field(default_factory=list[Any])
    in_pass: tuple[int, ...] = ()
    written: set[int] = field(default_factory=set[int])
    counted: dict[str, Any] = field(default_factory=dict[str, Any])
    asked: tuple[int, int] = (0, 0)
    is_whole: bool = True
    is_validated: bool = False
    rows: MemberRows = field(default_factory=MemberRows)
    batches: Batches = field(default_factory=Batches)
    lanes: Lanes = field(default_factory=Lanes)

    @property
    def num_epochs(self) -> int:
        """Epochs of each member."""
        return self.run.limits.num_epochs or 0

    @property
    def size(self) -> int:
        """Members in a group."""
        return 1 if self.layout is None else self.layout.size

    @property
    def used(self) -> tuple[Place, ...]:
        """The places on which groups lie, one after the other."""
        return self.places[: 1 if self.layout is None else self.layout.devices]

    @property
    def where(self) -> str:
        """What groups lie on, in words."""
        placement = placement_at(self.places[0])
        if placement.is_one:
            return "devices"
        return f"parts of the mesh, of {placement.num_devices} devices each"

    def place_of(self, index: int) -> Place:
        """The place of a group."""
        return self.used[index % len(self.used)]

    @property
    def steps(self) -> Steps:
        """The compiled steps for the groups on the first place, which tell how to send them."""
        return self.make_steps(self.size, self.places[0])

    def steps_of(self, index: int) -> Steps:
        """The compiled steps for a group."""
        return self.make_steps(self.size, self.place_of(index))

    def placed(self, chunk: Chunk) -> Sequence[Chunk]:
        """The chunk on each place that is used."""
        return [self.batches.on(chunk, place) for place in self.used]

    def send_each(self, number: int, send: Callable[[int], None], *, is_timed: bool) -> None:
        """Sends off steps of each group, by its index; one after the other where they are timed."""
        lanes = 1 if is_timed or self.layout is None else self.layout.lanes
        self.lanes.each(number, send, lanes, first_of(self.places[0]))

    @property
    def training(self) -> list[Member]:
        """The members that have not ended."""
        return [member for member in self.members if member.is_training]

    @property
    def passes_left(self) -> int:
        """Passes until the last member has trained for its epochs."""
        return max((self.num_epochs - member.epoch for member in self.training), default=0)

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

    def by_member(self, metrics: Sequence[Metrics]) -> dict[int, Metrics]:
        """Accumulated metrics of each member, on the host."""
        host: list[Any] = jax.device_get(list(metrics))
        if self.size == 1:
            return {n: m for n, m in zip(self.occupants, host, strict=True) if n != EMPTY}
        return {
            number: jax.tree.map(lambda leaf, place=place: leaf[place], group)
            for index, group in enumerate(host)
            for place, number in enumerate(self.group(index))
            if number != EMPTY
        }

    @property
    def monitors(self) -> tuple[Monitor, ...]:
        """What tells which of two epochs of members is better."""
        if self.parts.monitor:
            return (self.parts.monitor,)
        return tuple(GUIDE_ORDER) if self.is_validated else (("train/loss", "min"),)

    @property
    def followed(self) -> list[str]:
        """The metrics that the scheduler and the trainer follow."""
        own = followed_of(self.scheduler)
        both = (own.name if own else None, self.parts.monitor[0] if self.parts.monitor else None)
        return [name for name in both if name is not None]

    def view(self) -> PopulationView:
        """The population as a scheduler sees it."""
        counters = self.run.counters
        return PopulationView(
            epoch=counters.epochs_done,
            num_epochs=self.num_epochs,
            members=tuple(self.members),
            monitor=self.parts.monitor,
            step=counters.step,
            epochs_since=counters.epochs_done - self.asked[0],
            steps_since=counters.step - self.asked[1],
        )

    def root_keys(self, index: int) -> Any:
        """The root random keys of a group where steps may change those of the states, else None."""
        if self.parts.root_key is None:
            return None
        group = [self.occupants[0] if n == EMPTY else n for n in self.group(index)]
        seeds = [self.members[number].seed for number in group]
        return self.maker.root_keys(seeds, self.size, self.place_of(index))


def validation_metrics(trainer: TrainerModule) -> dict[str, Any]:
    """The metrics that a validation will give, as shapes; none where only a validation can tell."""
    if not trainer._made.uses_loss_steps:  # the example is that of the model, and no batch
        return {}
    metrics = jax.eval_shape(trainer.eval_step, trainer.state, trainer.exmp_input)
    if any(callable(getattr(form, "compute", None)) for form in metrics.values()):
        return {}  # objects, which may compute several values each
    derive = trainer.derived_metrics if overrides(trainer, "derived_metrics") else None
    names = derived_names(derive, [f"val/{name}" for name in metrics], "val/")
    return {} if names is None else {name: metrics.get(name[4:]) for name in names}

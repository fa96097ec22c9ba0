"""The test of a population: the best model of each member, as its single run is tested."""

from dataclasses import replace
from typing import Any

import jax

from boltax._base._evaluation import Evaluation, evaluations_of, prefix_of
from boltax._base._types import PyTree, ScalarMetrics, State
from boltax._loop._evaluate import evaluate
from boltax._loop._saving import save_small
from boltax._loop._validate import computed
from boltax._step._ema import evaluated
from boltax._step._state import variables_of, with_variables
from boltax.checkpoint._files import write_json
from boltax.checkpoint._metrics_json import plain_metrics
from boltax.checkpoint._partial import load_variables
from boltax.checkpoint._rundir import RunDirectory
from boltax.errors import noting
from boltax.parallel._devices import on_device
from boltax.parallel._places import first_of, on_place, placement_at
from boltax.tune._member_folders import member_folder
from boltax.tune._members import Members
from boltax.tune._schedulers import Member


def evaluate_best(members: Members, test_loader: Any) -> None:
    """Gives each member that was ever validated the metrics of its best model on the test set."""
    run, parts = members.run, members.parts
    for member in members.members:
        if member.best is None:
            continue
        with noting(f"the test of member {member.number}", run.where("test")):
            metrics = _tested(members, member, test_loader)
        members.members[member.number] = replace(member, best={**member.best, **metrics})
        path = RunDirectory(member_folder(parts.folder, member.number)).metrics / "test.json"
        what = f"the test of member {member.number}"
        save_small(parts, run, what, write_json, path, plain_metrics(metrics))


def best_state(members: Members, member: Member) -> State:
    """The state of a single run with the best variables of a member, as an evaluation reads it."""
    parts = members.parts
    state = members.maker.fresh(member.seed, member.values)
    if members.has_row(member.number):
        row = members.row_of(member.number)
        variables = members.rows.row(members.best, members.size, row)
        variables = on_place(variables, members.places[0])
    else:
        parts.saver.wait()
        folder = member_folder(parts.folder, member.number)
        variables = load_variables(folder, _form(members, state))[0]
    with jax.transfer_guard("allow"):  # of a few small arrays for each member
        return evaluated(with_variables(state, variables))


def _form(members: Members, state: State) -> PyTree:
    """The shapes of the variables of a state, and on a mesh where they lie."""
    return placement_at(members.places[0]).forms(variables_of(state))


def _tested(members: Members, member: Member, test_loader: Any) -> ScalarMetrics:
    parts, run = members.parts, members.run
    state = best_state(members, member)
    metrics = ScalarMetrics()
    for name, evaluation in evaluations_of(test_loader, "test_loader").items():
        if evaluation.function is not None:
            metrics |= _computed(members, member, state, evaluation, name)
            continue
        metrics |= evaluate(
            members.make_steps(1, members.places[0]),
            state,
            run.source(evaluation.loader, "test_loader"),
            track=members.hooks.tracker,
            prefix=prefix_of("test", name),
            limit=parts.loop.limit_test_batches,
            prefetch=parts.loop.prefetch,
            desc=f"Test of member {member.number}",
            poll=run.signals.poll,
            derive=parts.derive,
        )
    return metrics


def _computed(
    members: Members, member: Member, state: Any, evaluation: Evaluation, name: str
) -> ScalarMetrics:
    own = members.live.state
    try:
        # the trainer's own steps are those of one device
        members.live.state = on_device(state, first_of(members.places[0]))
        where = f"member {member.number}"
        return computed(evaluation, members.hooks, prefix_of("test", name), where)
    finally:
        members.live.state = own

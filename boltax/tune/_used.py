"""Notices hyperparameters that the compiled step does not read, so that members come out equal.

A step that reads a Python number in place of the traced one (``self.hparams["x"]`` for
``model.hparams["x"]``, or a closure in `create_functions`) trains all members alike, in silence.
The step is traced, and it is followed which of its results depend on each value.
"""

from collections.abc import Mapping
from typing import Any

import jax

from boltax._step._bodies import checked_result
from boltax.errors import ConfigurationError
from boltax.tune._members import Members


def check_used(members: Members, batch: Any) -> None:
    """Refuses hyperparameters on which neither parameters nor metrics of a step depend.

    Args:
        members: the population.
        batch: the shapes of a batch.

    Raises:
        ConfigurationError: naming the hyperparameters, and how a step reads them.
    """
    names = members.varied.names
    if not names:
        return
    state = members.maker.form()
    values = dict.fromkeys(names, jax.ShapeDtypeStruct((), jax.numpy.float32))

    def step(values: Mapping[str, jax.Array], state: Any, batch: Any) -> Any:
        new, metrics = checked_result(
            members.parts.steps.train_step(members.maker.changed(state, values), batch)
        )
        return new.replace(opt_state=(), hparams=None, tx=None), metrics

    jaxpr = jax.make_jaxpr(step)(values, state, batch).jaxpr
    order = sorted(names)  # as JAX flattens a dict
    unused = [
        name
        for place, name in enumerate(order)
        if not any(_reached(jaxpr, [i == place for i in range(len(jaxpr.invars))]))
    ]
    if unused:
        raise ConfigurationError(
            f"Received members with {', '.join(unused)}, which the training step does not read: "
            "members that differ in it come out equal; expected a step that reads the traced "
            f'number. Write model.hparams["{unused[0]}"] in loss_function, or '
            f'state.hparams["{unused[0]}"] in the train_step of create_functions, in place of a '
            "Python number such as self.hparams[...]."
        )


def _reached(jaxpr: Any, are_sources: list[bool]) -> list[bool]:
    """Which results of a program depend on these of its arguments."""
    reached = {var for var, is_source in zip(jaxpr.invars, are_sources, strict=True) if is_source}
    for equation in jaxpr.eqns:
        inputs = [_is_variable(var) and var in reached for var in equation.invars]
        if not any(inputs):
            continue
        inner = _inner(equation)
        outputs = [True] * len(equation.outvars) if inner is None else _reached(inner, inputs)
        reached |= {
            var for var, is_reached in zip(equation.outvars, outputs, strict=True) if is_reached
        }
    return [_is_variable(var) and var in reached for var in jaxpr.outvars]


def _inner(equation: Any) -> Any:
    """The program that an equation calls with its own arguments, if it does no more than that."""
    for name in ("jaxpr", "call_jaxpr"):
        inner = equation.params.get(name)
        inner = getattr(inner, "jaxpr", inner)
        is_call = equation.primitive.name not in ("scan", "while", "cond")
        if inner is not None and is_call and len(inner.invars) == len(equation.invars):
            return inner
    return None


def _is_variable(var: Any) -> bool:
    return not hasattr(var, "val")  # a literal has a value in place of a name

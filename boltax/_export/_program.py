"""What is exported: `predict_function` as a pure program of weights and inputs, for any batch size.

A batch size that is not known is a symbol of `jax.export`. Whether the program holds for each size
is found out by tracing, here and not where the program is used.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.export

from boltax._base._trees import common_size, describe, describe_leaf, path_name
from boltax._base._types import PyTree
from boltax.errors import BoltaxError, ConfigurationError, ModelError, unknown_name

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
ANY = "batch"
"""What the symbol for the batch size is called."""

Function = Callable[..., PyTree]


@dataclass(frozen=True)
class Program:
    """An exported program, and what a signature says of it.

    Attributes:
        exported: of jax.
        arguments: for each argument the shapes of its arrays.
        draws: whether it draws random numbers.
        unused: places in the inputs that change nothing.
    """

    exported: jax.export.Exported
    arguments: tuple[PyTree, ...]
    draws: bool
    unused: list[str]


def _places_unused(jaxpr: Any, inputs: PyTree) -> list[str]:
    """Places in the inputs, the last variables of a jaxpr, that nothing in it reads."""
    read = {id(atom) for equation in jaxpr.eqns for atom in equation.invars}
    read |= {id(atom) for atom in jaxpr.outvars}
    places = jax.tree_util.tree_leaves_with_path(inputs)
    own = jaxpr.invars[len(jaxpr.invars) - len(places) :]
    return [
        path_name(path, "inputs")
        for (path, _), variable in zip(places, own, strict=True)
        if id(variable) not in read
    ]


def platforms_of(given: str | Sequence[str] | None) -> tuple[str, ...]:
    """The platforms to export for; by default the one on which this process computes.

    Raises:
        UnknownNameError: for a name that is none of JAX's.
    """
    if given is None:
        return (jax.export.default_export_platform(),)
    names = (given,) if isinstance(given, str) else tuple(given)
    for name in names:
        if name not in PLATFORMS:
            raise unknown_name("platform", name, PLATFORMS)
    if not names:
        raise ConfigurationError(
            'Received no platforms; expected at least one. Write platforms=("cpu", "cuda").'
        )
    return names


def shapes_of_inputs(inputs: PyTree, batch_size: int | None) -> PyTree:
    """The shapes of inputs, with another batch size.

    Args:
        inputs: their shapes so far. Where one has a symbolic axis, all are taken as they are,
            and so are those that do not agree on their first axis.
        batch_size: the number of examples; None for a symbol that stands for any.

    Raises:
        ConfigurationError: for a batch size where none can be set.
    """
    if is_symbolic(inputs) or common_size(inputs) is None:
        if batch_size is not None:
            raise ConfigurationError(
                f"Received batch_size={batch_size} for inputs with {describe(inputs, 'inputs')}; "
                "expected arrays that agree on their first axis. Leave batch_size out: then the "
                "shapes are taken as they are."
            )
        return inputs
    return resized(inputs, jax.export.symbolic_shape(ANY)[0] if batch_size is None else batch_size)


def resized(shapes: PyTree, size: Any) -> PyTree:
    """Shapes with another length of their first axes."""

    def one(leaf: Any) -> Any:
        shape = (size, *leaf.shape[1:]) if leaf.shape else ()
        return jax.ShapeDtypeStruct(shape, leaf.dtype)

    return jax.tree.map(one, shapes)


def is_symbolic(shapes: PyTree) -> bool:
    """Whether an axis of any shape has no number for its length."""
    return any(
        jax.export.is_symbolic_dim(size) for leaf in jax.tree.leaves(shapes) for size in leaf.shape
    )


def export_program(
    function: Function,
    arguments: tuple[PyTree, ...],
    example: PyTree,
    platforms: Sequence[str],
    owner: str,
) -> Program:
    """Exports a function of which the last argument is the inputs.

    Args:
        function: pure.
        arguments: the shapes of its arguments.
        example: shapes of inputs for which the function is known to work.
        platforms: as JAX calls them.
        owner: the trainer's class, for messages.

    Raises:
        ModelError: for shapes or branches that depend on values, a program that does not hold for
            each batch size, outputs without a value for each example or in containers that cannot
            be stored, and for what a platform does not have.
    """
    *others, inputs = arguments
    size = None if is_symbolic(example) or not is_symbolic(inputs) else common_size(example)
    compiled = jax.jit(function)
    try:
        if size is not None:
            jax.eval_shape(function, *others, resized(example, size + 1))
        traced = compiled.trace(*arguments)
        exported = jax.export.export(compiled, platforms=platforms)(*arguments)
    except BoltaxError:
        raise
    except Exception as error:
        raise _failed(error, function, (*others, example), owner, size) from error
    outputs = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    if size is not None:
        _check_outputs(outputs, inputs, owner, size)
    try:
        exported.serialize()
    except ValueError as error:
        raise _not_plain(error, owner) from error
    unused = _places_unused(traced.jaxpr.jaxpr, inputs)
    return Program(exported, arguments, "random_bits" in str(traced.jaxpr), unused)


def _failed(
    error: Exception, function: Function, known: tuple[PyTree, ...], owner: str, size: int | None
) -> Exception:
    said = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    if _depends_on_values(error):
        return ModelError(
            f"Received {owner}, whose predict_function has shapes or branches that depend on "
            f"values ({said}); expected that they follow from the shapes of the inputs. Write "
            "jnp.nonzero(x, size=10), jnp.where(mask, x, 0) or jax.lax.cond in its place."
        )
    if size is not None and _works(function, known):
        return ModelError(
            f"Received {owner}, whose predict_function does not hold for every batch size ({said})"
            "; expected one program for any number of examples. Write x.reshape(x.shape[0], -1) in "
            f"place of numbers, or export(folder, batch_size={size}) for batches of {size} alone."
        )
    return ModelError(
        f"Received {owner}, whose predict_function cannot be exported ({said}); expected what JAX "
        "can export. Without batch_size and platforms it is exported for any batch size, and for "
        "the platform of this process."
    )


def _depends_on_values(error: Exception) -> bool:
    kinds = (
        jax.errors.ConcretizationTypeError,
        jax.errors.TracerArrayConversionError,
        jax.errors.TracerIntegerConversionError,
        jax.errors.NonConcreteBooleanIndexError,
    )
    return isinstance(error, kinds)


def _works(function: Function, arguments: tuple[PyTree, ...]) -> bool:
    try:
        jax.eval_shape(function, *arguments)
    except Exception:  # noqa: BLE001 - the user's code; the first error is the one to tell
        return False
    return True


def _check_outputs(outputs: PyTree, inputs: PyTree, owner: str, size: int) -> None:
    first = next(leaf.shape[0] for leaf in jax.tree.leaves(inputs) if leaf.shape)
    for path, leaf in jax.tree_util.tree_leaves_with_path(outputs):
        if leaf.shape[:1] != (first,):
            raise ModelError(
                f"Received {path_name(path, 'outputs')}: {describe_leaf(leaf)} from "
                f"predict_function of {owner}, for inputs with {describe(inputs, 'inputs')}; "
                f"expected outputs [{ANY}, ...]. Return a value per example, or write "
                f"export(folder, batch_size={size})."
            )


def _not_plain(error: Exception, owner: str) -> ModelError:
    return ModelError(
        f"Received inputs or outputs of predict_function of {owner} in containers of a class "
        f"({str(error).splitlines()[0]}); expected dicts, lists and tuples, which a process "
        "without that class can read. Return {'logits': logits} in its place."
    )


def described(tree: PyTree, root: str, unused: Sequence[str] = ()) -> list[Mapping[str, Any]]:
    """The arrays of a tree for ``signature.json``: name, shape and dtype of each."""
    return [
        {
            "name": (name := path_name(path, root)),
            "shape": [size if isinstance(size, int) else str(size) for size in leaf.shape],
            "dtype": str(leaf.dtype),
            **({"is_used": False} if name in unused else {}),
        }
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]

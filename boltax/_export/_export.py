"""`TrainerModule.export`: a trained model as a folder that runs without boltax and Flax.

program.jax           predict_function, exported by jax.export: StableHLO with its signature
weights.safetensors   the model's variables by name; those of the moving average, if there is one
signature.json        inputs and outputs with shapes and dtypes; how the model was made
predict.py            reads the other three; imports JAX alone (which imports flatbuffers)
README.md             how to call it
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from boltax._base._narrow import narrowed
from boltax._base._optional import import_optional
from boltax._base._trees import tree_bytes
from boltax._base._types import PyTree
from boltax._build._arguments import whole
from boltax._build._constructed import Constructed
from boltax._build._methods import overrides
from boltax._export import _standalone
from boltax._export._program import (
    Program,
    described,
    export_program,
    platforms_of,
    shapes_of_inputs,
)
from boltax._export._safetensors import write_safetensors
from boltax._export._weights import Weights, flat_weights
from boltax._step._bodies import predict_body
from boltax._step._ema import evaluated
from boltax._step._loss import inputs_of
from boltax._step._state import split_collections, variables_of
from boltax.checkpoint._files import read_json, unwritable, write_json, write_text
from boltax.errors import CheckpointError, ConfigurationError, RunDirectoryError, unknown_name
from boltax.models._lora import merged

FORMAT = "boltax export 1"
PLACES = ("beside", "inside")
MOST_INSIDE = 2**31 - 2**26  # jax.export writes flatbuffers, which end at 2 GiB


def export(  # noqa: D417 - a method: `self` is the trainer
    self: Constructed,
    folder: str | os.PathLike[str],
    inputs: PyTree = None,
    *,
    batch_size: int | None = None,
    platforms: str | Sequence[str] | None = None,
    weights: str = "beside",
) -> Path:
    """Writes the trained model as a program that runs without boltax, Flax and your code.

    The program is `predict_function` in evaluation mode, exported by `jax.export`; its numbers are
    those of `predict_model`. The weights are those that are evaluated: the moving average with
    ``LoopOptions(ema=...)``. They lie beside the program in a safetensors file and are handed to
    it, so they are stored once, and others can be put in their place.

    Args:
        folder: a new folder, or that of an earlier export, which is replaced. It gets
            ``program.jax``, ``weights.safetensors``, ``signature.json``, ``README.md``, and
            ``predict.py``, whose ``load()`` gives the model as a function.
        inputs: what the program is to take: arrays, or `jax.ShapeDtypeStruct` in their place, also
            with axes of `jax.export.symbolic_shape`. By default that of `exmp_input` which the
            model is called with; of a trainer with a `predict_function` of its own, all of it.
        batch_size: the number of examples in each call; None for any.
        platforms: ``"cpu"``, ``"cuda"``, ``"rocm"``, ``"tpu"``, or several of them; by default that
            of this process.
        weights: ``"beside"`` the program, or also ``"inside"`` of it, as constants: one file less
            to move, but slower to load, at most 2 GB, and folded with each other by the compiler,
            which may change the last digits.

    Returns:
        The folder.

    Raises:
        ModelError: when the program does not hold for any batch size, has shapes that depend on
            values, or cannot be exported for another reason.
        ConfigurationError: for arguments that cannot work.
        MissingExtraError: without flatbuffers, in which JAX stores programs.
        RunDirectoryError: when the folder holds something else, or cannot be written.
    """
    self._made.check_complete("export")
    if weights not in PLACES:
        raise unknown_name("export(weights=...)", weights, PLACES)
    place = _checked(folder)
    import_optional("flatbuffers", extra="export", purpose="TrainerModule.export")
    names = platforms_of(platforms)
    size = None if batch_size is None else whole("batch_size", batch_size)
    batch = _inputs(self) if inputs is None else _abstract(inputs)
    self._made.saver.wait()
    with self._made.progress.status("exporting the model"):
        flat, function = _function(self)
        flat = self._made.placement.to_host(flat)
        program = _program(self._made.name, function, flat, batch, size, names, weights)
        signature = _signature(self, program, flat, weights)
        processes = self._made.placement.group
        processes.by_first("the export", lambda: _write(place, program, flat, signature))
    for unused in program.unused:
        self._made.progress.note(
            f"{unused} is an input that changes nothing; leave it out: export(folder, inputs=...)"
        )
    return place


def _checked(folder: str | os.PathLike[str]) -> Path:
    """The folder, where it may be written: there is none, or an empty one, or an earlier export."""
    place = Path(os.path.abspath(Path(folder).expanduser()))
    if place.is_file() or (place.is_dir() and any(place.iterdir()) and not _is_export(place)):
        raise RunDirectoryError(
            f"Received {os.fspath(folder)!r}, which holds something else; expected a new folder, "
            'or that of an earlier export. Write export("exported").'
        )
    return place


def _is_export(place: Path) -> bool:
    try:
        return read_json(place / "signature.json").get("format") == FORMAT
    except (CheckpointError, AttributeError):
        return False


def _is_default(trainer: Constructed) -> bool:
    return not overrides(trainer, "predict_function")


def _inputs(trainer: Constructed) -> PyTree:
    """What of the example input a model is called with, as shapes."""
    example = trainer.exmp_input
    if _is_default(trainer):
        if trainer._made.uses_loss_steps:
            example = inputs_of(example)
        elif isinstance(example, tuple | list):  # what the model was initialised with
            example = example[0]
    return _abstract(example)


def _abstract(inputs: PyTree) -> PyTree:
    def one(leaf: Any) -> Any:
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return leaf
        array = narrowed(np.asarray(leaf), "inputs")
        return jax.ShapeDtypeStruct(array.shape, array.dtype)

    return jax.tree.map(one, inputs)


def _function(trainer: Constructed) -> tuple[dict[str, Any], Any]:
    """The weights by name, and the prediction as a function of them and of inputs."""
    made, is_wrapped = trainer._made, _is_default(trainer)
    state: Any = evaluated(trainer.state, made.root_key)
    flat, back = flat_weights(merged(made.adapter, variables_of(state)))
    keys, with_keys = flat_weights({"rng": getattr(state, "rng", None)})
    keys, hparams = jax.device_get(keys), jax.device_get(getattr(state, "hparams", None))

    def predict(weights: Weights, inputs: PyTree) -> PyTree:
        variables = back(weights)
        fields = {"params": variables["params"], **split_collections(variables), "hparams": hparams}
        fields |= with_keys({name: jnp.asarray(key) for name, key in keys.items()})
        own = state.replace(**{n: value for n, value in fields.items() if hasattr(state, n)})
        batch = (inputs,) if is_wrapped else inputs
        return predict_body(made.loss_steps.predict_step, own, np.int32(0), batch)

    return flat, predict


def _program(
    owner: str,
    function: Any,
    flat: Weights,
    batch: PyTree,
    size: int | None,
    platforms: Sequence[str],
    weights: str,
) -> Program:
    shapes = shapes_of_inputs(batch, size)
    if weights == "beside":
        beside = {n: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for n, leaf in flat.items()}
        return export_program(function, (beside, shapes), batch, platforms, owner)
    if tree_bytes(flat) > MOST_INSIDE:
        raise ConfigurationError(
            f"Received weights of {tree_bytes(flat):,} bytes to be put inside of the program; "
            f'expected at most {MOST_INSIDE:,}. Write weights="beside".'
        )
    constants = jax.device_get(flat)
    return export_program(
        lambda inputs: function(constants, inputs), (shapes,), batch, platforms, owner
    )


def _signature(
    trainer: Constructed, program: Program, flat: Weights, weights: str
) -> dict[str, Any]:
    from boltax import __version__

    exported = program.exported
    outputs = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    return {
        "format": FORMAT,
        "inputs": described(program.arguments[-1], "inputs", program.unused),
        "outputs": described(outputs, "outputs"),
        "weights": weights,
        "platforms": list(exported.platforms),
        "draws_random_numbers": program.draws,
        "trainer": trainer._made.name,
        "model": trainer._made.adapter.name,
        "step": int(jax.device_get(getattr(trainer.state, "step", 0))),
        "is_moving_average": getattr(trainer.state, "ema", None) is not None,
        "arrays": len(flat),
        "numbers": sum(leaf.size for leaf in flat.values()),
        "versions": {"boltax": __version__, "jax": jax.__version__},
        "calling_convention_version": exported.calling_convention_version,
    }


def _write(place: Path, program: Program, flat: Weights, signature: dict[str, Any]) -> None:
    """Writes the folder; it appears whole, or the earlier one stays."""
    new = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    try:
        new.mkdir(parents=True)
        write_safetensors(new / "weights.safetensors", flat, {"format": "boltax"})
        (new / "program.jax").write_bytes(program.exported.serialize())
        write_json(new / "signature.json", signature)
        write_text(new / "predict.py", Path(_standalone.__file__).read_text(encoding="utf-8"))
        write_text(new / "README.md", readme(signature))
        shutil.rmtree(place, ignore_errors=True)
        new.rename(place)
    except OSError as error:
        raise unwritable(place, error) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def readme(signature: dict[str, Any]) -> str:
    """The five lines beside the program."""
    shape, name = signature["inputs"][0]["shape"], signature["model"]
    size = ", ".join(map(str, shape))
    drawn = " Each call draws the same random numbers." if signature["draws_random_numbers"] else ""
    return (
        f"`{name}` after step {signature['step']}, exported for {', '.join(signature['platforms'])}"
        " by `jax.export`; it needs `pip install jax flatbuffers`.\n"
        "Inputs and outputs, with shapes and dtypes, are in `signature.json`; the first input is "
        f"{signature['inputs'][0]['dtype']}[{size}].{drawn}\n"
        "`from predict import load; predict = load(); outputs = predict(inputs)` runs it.\n"
        "By hand: `jax.export.deserialize(bytearray(open('program.jax', 'rb').read()))"
        f".call({'' if signature['weights'] == 'inside' else 'weights, '}inputs)`.\n"
        "`weights.safetensors` has the weights by name; `weights` is the dict of them that "
        "`predict.read_weights` or safetensors gives.\n"
    )

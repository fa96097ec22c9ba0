"""The constructor of a trainer's class, as it is seen from outside, and a call of it."""

import functools
import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from boltax._base._containers import plain_containers
from boltax._build._methods import base_of
from boltax.checkpoint._constructor_call import ConstructorCall


class ConstructorSignature:
    """`inspect.signature` of a trainer's class: that of its ``__init__``, a subclass's own too.

    Without it Python takes the signature of ``__new__``, which sees any arguments.
    """

    def __get__(self, trainer: object, cls: type[Any]) -> inspect.Signature:
        signature = inspect.signature(cls.__init__)
        parameters = list(signature.parameters.values())[1:]
        return signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty)


def noted_call(cls: type, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> ConstructorCall:
    """A call of a trainer's class, to be stored.

    What boltax takes for dicts is noted as dicts, of whatever library it comes. What only the
    subclass takes stays as it is: its own constructor may want no other type.
    """
    call = ConstructorCall.of(cls, args, kwargs)
    own = inspect.signature(cls.__init__).parameters
    ours = inspect.signature(base_of(cls).__init__).parameters
    is_ours = {name: name in ours or name not in own for name in call.named}
    named = {
        name: plain_containers(value) if is_ours[name] and name != "exmp_input" else value
        for name, value in call.named.items()
    }
    return replace(call, named={**named, **_unfolded(named)})


def _unfolded(named: Mapping[str, Any]) -> dict[str, Any]:
    """The class behind a `functools.partial`, and all its arguments: these can be stored."""
    model = named.get("model_class")
    hparams = named.get("model_hparams") or {}
    if not isinstance(model, functools.partial) or model.args or not isinstance(hparams, dict):
        return {}
    keywords = plain_containers(model.keywords)
    return {"model_class": model.func, "model_hparams": {**keywords, **hparams}}

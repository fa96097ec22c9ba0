"""The signature of a trainer's class is that of its constructor."""

import inspect
from types import MappingProxyType

import boltax as bx
from boltax._build._signature import noted_call
from dummies import Classifier, Mlp, classifier


class Own(Classifier):
    """With a constructor of its own."""

    def __init__(self, width: int, depth: int = 2, **kwargs):
        super().__init__(Mlp, {"features": width}, **kwargs)


def test_the_signature_of_a_trainer_is_that_of_its_constructor():
    named = inspect.signature(bx.TrainerModule).parameters
    assert list(named)[:4] == ["model_class", "model_hparams", "optimizer_hparams", "exmp_input"]
    assert named["seed"].default == 42
    assert named["hparams"].kind is inspect.Parameter.VAR_KEYWORD


def test_a_subclass_shows_its_own_constructor_or_the_one_that_it_inherits():
    assert str(inspect.signature(Own)) == "(width: int, depth: int = 2, **kwargs)"
    assert inspect.signature(Classifier) == inspect.signature(bx.TrainerModule)


def test_what_an_editor_completes_has_types():
    annotations = {
        name: kind
        for base in bx.TrainerModule.__mro__
        for name, kind in inspect.get_annotations(base).items()
    }
    assert inspect.signature(bx.TrainerModule.state.fget).return_annotation is bx.TrainState
    assert annotations["logger"].__name__ == "LoggerGroup"
    assert inspect.signature(bx.TrainerModule.bind_model).return_annotation.__name__ == "BoundModel"
    assert annotations["run"] is not None


def test_arguments_are_noted_by_name_with_mappings_as_dicts_but_for_those_of_the_subclass():
    class Configured(Classifier):
        def __init__(self, cfg, *args, **kwargs):
            super().__init__(*args, **kwargs)

    cfg = MappingProxyType({"a": 1})
    call = noted_call(Configured, (cfg, Mlp), {"threshold": cfg, "optimizer_hparams": cfg})
    assert call.positional == (Mlp,)
    assert type(call.named["cfg"]) is MappingProxyType
    assert call.named["threshold"] == call.named["optimizer_hparams"] == {"a": 1}
    assert type(call.named["threshold"]) is dict


def test_a_trainer_of_the_signature_comes_back(tmp_path):
    trainer = classifier(tmp_path, Classifier)
    bound = inspect.signature(type(trainer)).bind(**trainer._made.call.named)
    assert bound.arguments["model_class"] is Mlp

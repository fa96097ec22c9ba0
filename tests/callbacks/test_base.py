"""The protocol: views, requests, which hooks are called, and what hooks may return."""

import dataclasses

import pytest

from boltax.callbacks import _base
from boltax.callbacks._base import (
    HOOKS,
    Callback,
    Log,
    Save,
    Stop,
    as_callbacks,
    as_requests,
    overriding,
)
from boltax.errors import ConfigurationError, UnknownNameError


class Watching(Callback):
    def on_log(self, view):
        return None


class WatchingMore(Watching):
    def on_test_end(self, view):
        return Stop("done")


# Views and requests


def test_a_view_is_frozen(view):
    with pytest.raises(dataclasses.FrozenInstanceError, match="step"):
        view().step = 3


def test_requests_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError, match="reason"):
        Stop("why").reason = "because"


@pytest.mark.parametrize("reason", ["", "  ", None, True])
def test_a_stop_needs_a_reason(reason):
    with pytest.raises(ConfigurationError, match="expected the reason as text"):
        Stop(reason)


@pytest.mark.parametrize("field", ["metrics", "images", "figures", "histograms", "text"])
@pytest.mark.parametrize("value", [0.5, ["lr"], {1: 0.5}])
def test_a_log_is_made_of_mappings_from_names(field, value):
    with pytest.raises(ConfigurationError, match=rf"Received Log\({field}=.*mapping from names"):
        Log(**{field: value})


# Hooks


def test_the_docstring_has_the_hooks_in_their_order():
    words = [word for word in _base.__doc__.split() if word in HOOKS]
    assert words == list(HOOKS)


def test_a_callback_has_every_hook_and_no_other():
    assert {name for name in vars(Callback) if name.startswith("on_")} == set(HOOKS)


@pytest.mark.parametrize("hook", HOOKS)
def test_an_empty_hook_does_nothing(hook, view):
    arguments = (view(), ValueError("boom")) if hook == "on_exception" else (view(),)
    assert getattr(Callback(), hook)(*arguments) is None


def test_only_overriding_callbacks_are_called():
    plain, watching, more = Callback(), Watching(), WatchingMore()
    callbacks = (plain, watching, more)
    assert overriding(callbacks, "on_log") == (watching, more)
    assert overriding(callbacks, "on_test_end") == (more,)
    assert overriding(callbacks, "on_step_end") == ()


def test_a_hook_of_one_object_counts():
    callback = Callback()
    callback.on_log = lambda view: None
    assert overriding([callback], "on_log") == (callback,)


def test_an_unknown_hook_is_an_error():
    with pytest.raises(UnknownNameError, match="Did you mean 'on_log'"):
        overriding([], "on_logg")


@pytest.mark.parametrize(
    "misspelt,meant",
    [
        ("on_train_epoch_end", "on_training_epoch_end"),
        ("on_validation_end", "on_validation_epoch_end"),
        ("on_step_ends", "on_step_end"),
    ],
)
def test_a_misspelt_hook_is_an_error_when_the_class_is_defined(misspelt, meant):
    with pytest.raises(UnknownNameError, match=f"hook of Mine '{misspelt}'.*mean '{meant}'"):
        type("Mine", (Callback,), {misspelt: lambda self, view: None})


# The callbacks of a run


def test_one_callback_or_several_are_taken():
    one, two = Watching(), WatchingMore()
    assert as_callbacks(one) == (one,)
    assert as_callbacks([one, two]) == (one, two)
    assert as_callbacks(callback for callback in (one, two)) == (one, two)
    assert as_callbacks(()) == ()


@pytest.mark.parametrize(
    "given,message",
    [
        ([Watching(), print], r"callbacks\[1\]=<built-in function print>.*class MyCallback\("),
        ([Watching], r"callbacks\[0\]=<class .*Write Watching\(\.\.\.\), with parentheses"),
        ([int], r"of type type; expected an instance of a subclass of boltax.callbacks.Callback"),
        (None, r"callbacks\[0\]=None of type NoneType"),
        ("EarlyStopping", r"callbacks\[0\]='EarlyStopping' of type str"),
    ],
)
def test_what_is_no_callback_is_an_error(given, message):
    with pytest.raises(ConfigurationError, match=message):
        as_callbacks(given)


@pytest.mark.parametrize("every", [0, -1, 2.5, True, None])
def test_every_is_a_positive_whole_number(every):
    callback = Watching()
    callback.every = every
    with pytest.raises(ConfigurationError, match=r"Watching.every=.*Write every = 100"):
        as_callbacks([callback])


# What hooks return


@pytest.mark.parametrize(
    "value,requests",
    [
        (None, ()),
        (Save(), (Save(),)),
        (Stop("why"), (Stop("why"),)),
        ([], ()),
        ([Log({"lr": 0.1}), Save()], (Log({"lr": 0.1}), Save())),
        ((Stop("why"),), (Stop("why"),)),
    ],
)
def test_requests_become_a_sequence(value, requests):
    assert as_requests(value, Watching(), "on_log") == requests


@pytest.mark.parametrize(
    "value,advice",
    [
        (True, r"return Stop\('why'\)"),
        ("stop", r"return Stop\('why'\)"),
        ({"lr": 0.1}, r"return Log\(\{'my_metric'"),
        (Save, r"return Save\(\.\.\.\), with parentheses"),
        ([Save(), None], r"expected None, Stop, Save, Log, or a list of these"),
        (0.5, r"or nothing"),
        ("x" * 1000, r"x{70,80}\.\.\. of type str"),
    ],
)
def test_what_is_no_request_names_callback_and_hook(value, advice):
    with pytest.raises(ConfigurationError, match=advice) as caught:
        as_requests(value, Watching(), "on_log")
    assert "from Watching.on_log" in str(caught.value)


def test_a_hook_that_yields_is_an_error():
    with pytest.raises(ConfigurationError, match=r"of type generator from Watching.on_log"):
        as_requests((Save() for _ in range(1)), Watching(), "on_log")

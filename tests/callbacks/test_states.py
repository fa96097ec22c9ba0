"""What callbacks keep: taken as plain JSON, and given back to the callback that it belongs to."""

import math

import numpy as np
import pytest

from boltax.callbacks import Callback, LogFigure, Timer
from boltax.callbacks._states import callback_states, load_callback_states
from boltax.errors import CheckpointError, ConfigurationError


class Keeping(Callback):
    def __init__(self, state):
        self.state = state

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = dict(state)


class Other(Keeping):
    pass


PLAIN = {"none": None, "is": True, "n": 3, "x": [0.5, -math.inf], "text": {"a": [{"b": "c"}]}}


def test_states_survive():
    saved = callback_states([Keeping(PLAIN), Timer()])
    assert saved == [{"callback": "Keeping", "state": PLAIN}, {"callback": "Timer", "state": {}}]
    kept = Keeping({})
    load_callback_states([kept, Timer()], saved)
    assert kept.state == PLAIN


def test_nan_and_numbers_of_numpy_become_floats():
    ((value, other),) = callback_states([Keeping({"a": (math.nan, np.float64(0.5))})])[0][
        "state"
    ].values()
    assert math.isnan(value)
    assert (type(other), other) == (float, 0.5)


def test_a_saved_state_stays_as_it_was():
    callback = Keeping({"seen": [1]})
    saved = callback_states([callback])
    callback.state["seen"].append(2)
    assert saved[0]["state"] == {"seen": [1]}


@pytest.mark.parametrize(
    "state,message",
    [
        ({"w": np.zeros(2)}, r"Keeping\.state_dict\(\)\['w'\] = array.*of type ndarray"),
        ({"a": [{"b": 1j}]}, r"Keeping\.state_dict\(\)\['a'\]\[0\]\['b'\] = 1j of type complex"),
        ({"a": {1: 2}}, r"\['a'\] = \{1: 2\} of type dict"),
        ({"n": np.int64(3)}, r"\['n'\] = .* of type int64"),
        ({1: 2}, r"Keeping\.state_dict\(\) = \{1: 2\} of type dict"),
        (None, r"Keeping\.state_dict\(\) = None of type NoneType"),
        ([1], r"Keeping\.state_dict\(\) = \[1\] of type list"),
    ],
)
def test_what_is_not_plain_names_the_callback_and_the_value(state, message):
    with pytest.raises(ConfigurationError, match=message):
        callback_states([Keeping(state)])


def test_an_exception_of_a_callback_names_it():
    class Broken(Callback):
        def state_dict(self):
            raise KeyError("mine")

        def load_state_dict(self, state):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine") as caught:
        callback_states([Broken()])
    assert "callback Broken.state_dict" in caught.value.__notes__[0]
    with pytest.raises(KeyError, match="mine") as caught:
        load_callback_states([Broken()], [{"callback": "Broken", "state": {}}])
    assert "callback Broken.load_state_dict" in caught.value.__notes__[0]


def test_two_of_a_class_are_told_apart_by_their_order_and_equal_states_too():
    saved = callback_states([Keeping({"n": 1}), Other({}), Keeping({"n": 1}), Keeping({"n": 2})])
    given = [Other({"old": 1}), *(Keeping({}) for _ in range(3))]
    load_callback_states(given, saved)
    assert [callback.state for callback in given] == [{}, {"n": 1}, {"n": 1}, {"n": 2}]


def test_an_added_and_a_missing_callback_are_said(caplog):
    added = Other({"n": 1})
    load_callback_states([added], callback_states([Keeping({"n": 2})]))
    assert added.state == {"n": 1}
    said = [record.getMessage() for record in caplog.records if record.name == "boltax"]
    assert said == [
        "The callback Other was not part of the saved run: it starts anew.",
        "The saved run had a callback Keeping, which is not given now.",
    ]


@pytest.mark.parametrize("entry", [None, {"callback": "Keeping"}, {"callback": 1, "state": {}}])
def test_damaged_states_change_nothing(entry):
    callback = Keeping({"n": 1})
    with pytest.raises(CheckpointError, match="as what a callback kept; expected its class"):
        load_callback_states([callback], [{"callback": "Keeping", "state": {"n": 2}}, entry])
    assert callback.state == {"n": 1}


def test_without_a_state_of_its_own_a_callback_keeps_nothing():
    assert Callback().state_dict() == {}
    figure = LogFigure("a", lambda view: None)
    before = dict(vars(figure))
    figure.load_state_dict({})
    assert vars(figure) == before

"""Numbers that are agreed on beside the steps."""

import jax
from jax.sharding import AxisType

from boltax.parallel._flags import Flags


def flags():
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2])
    return Flags(mesh, 2)


def test_what_is_said_is_known_two_calls_later():
    one = flags()
    said = [[0, 3], [15, 0], [0, 0], [0, 0], [0, 0]]
    heard = [one.tell(each, at_once=False) for each in said]
    assert heard == [[0, 0], [0, 0], [0, 3], [15, 0], [0, 0]]


def test_at_once_everything_that_was_said_is_known():
    one = flags()
    one.tell([1, 0], at_once=False)
    one.tell([0, 0], at_once=False)
    assert one.tell([0, 2], at_once=True) == [1, 2]
    assert one.tell([0, 0], at_once=True) == [0, 0]


def test_what_was_acted_on_is_forgotten():
    one = flags()
    one.tell([1, 1], at_once=False)
    one.forget()
    assert one.tell([0, 0], at_once=True) == [0, 0]

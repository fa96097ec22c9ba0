"""A misspelt keyword argument is told with the name that was meant; the rest stays as it is."""

import inspect

import pytest

from boltax._base._argument_names import with_known_names
from boltax.errors import UnknownNameError


@with_known_names
def train(self, loader, *, num_epochs=1):
    """Trains."""
    return loader, num_epochs


def test_known_names_are_handed_on():
    assert train(None, "loader", num_epochs=3) == ("loader", 3)
    assert (train.__doc__, list(inspect.signature(train).parameters)[1:]) == (
        "Trains.",
        ["loader", "num_epochs"],
    )


def test_an_unknown_name_is_refused_and_a_missing_one_is_pythons_matter():
    with pytest.raises(UnknownNameError, match=r"argument of train 'epochs'.*Did you mean 'num_ep"):
        train(None, "loader", epochs=3)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'loader'"):
        train(None)

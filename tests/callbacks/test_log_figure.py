"""What a function draws is logged, at the right moments."""

import jax.numpy as jnp
import numpy as np
import pytest

from boltax.callbacks import Log, LogFigure
from boltax.errors import ConfigurationError, UnknownNameError

HOOKS = {
    "training": "on_training_epoch_end",
    "validation": "on_validation_epoch_end",
    "test": "on_test_end",
}


def image(view):
    return np.full((4, 4), view.epoch / 10)


@pytest.mark.parametrize("chosen", HOOKS)
def test_draws_at_its_hook_only(view, chosen):
    callback = LogFigure("image", image, hook=chosen)
    for name, hook in HOOKS.items():
        assert (getattr(callback, hook)(view()) is None) is (name != chosen)


def test_draws_every_few_epochs(view):
    callback = LogFigure("image", image, every_n_epochs=3)
    drawn = [e for e in range(1, 10) if callback.on_validation_epoch_end(view(epoch=e))]
    assert drawn == [3, 6, 9]


def test_a_test_is_always_drawn(view):
    callback = LogFigure("image", image, every_n_epochs=100, hook="test")
    assert callback.on_test_end(view(epoch=7)) is not None


@pytest.mark.parametrize(
    "shape,dtype",
    [((4, 4), np.float32), ((4, 4, 3), np.uint8), ((2, 4, 4, 1), np.float32), ((4, 4), np.bool_)],
)
@pytest.mark.parametrize("make", [np.ones, jnp.ones], ids=["numpy", "jax"])
def test_images_become_numpy_arrays(view, shape, dtype, make):
    logged = LogFigure("image", lambda view: make(shape, dtype)).on_validation_epoch_end(view())
    assert list(logged.images) == ["image"]
    assert type(logged.images["image"]) is np.ndarray
    assert logged.images["image"].shape == shape


def test_the_function_sees_the_view(view):
    batch = np.zeros((2, 4, 4, 1))
    callback = LogFigure("reconstructions", lambda view: view.predict(batch) + 1)
    logged = callback.on_validation_epoch_end(view())
    np.testing.assert_array_equal(logged.images["reconstructions"], batch + 1)


def test_a_figure_is_logged_as_one_and_forgotten_by_pyplot(view, tmp_path):
    pyplot = pytest.importorskip("matplotlib.pyplot")

    def draw(view):
        figure, axes = pyplot.subplots()
        axes.plot([1, 2])
        return figure

    open_before = pyplot.get_fignums()
    logged = LogFigure("curve", draw).on_validation_epoch_end(view())
    assert pyplot.get_fignums() == open_before
    logged.figures["curve"].savefig(tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 0


def test_none_logs_nothing(view):
    assert LogFigure("image", lambda view: None).on_validation_epoch_end(view()) is None


@pytest.mark.parametrize("value", ["picture.png", np.ones(3), np.ones((1, 2, 3, 4, 5)), object()])
def test_what_is_no_picture_is_an_error(view, value):
    with pytest.raises(ConfigurationError, match=r"the function of LogFigure\('image'\)"):
        LogFigure("image", lambda view: value).on_validation_epoch_end(view())


@pytest.mark.parametrize(
    "settings,error,message",
    [
        ({"hook": "validate"}, UnknownNameError, "Did you mean 'validation'"),
        ({"function": np.ones(3)}, ConfigurationError, "expected a function of the view"),
        ({"every_n_epochs": 0}, ConfigurationError, "every_n_epochs=0.*at least 1"),
    ],
)
def test_settings_that_make_no_sense(settings, error, message):
    with pytest.raises(error, match=message):
        LogFigure(**{"key": "image", "function": image, **settings})


def test_is_exported_with_its_request():
    assert Log(images={"image": np.ones((2, 2))}).images["image"].shape == (2, 2)

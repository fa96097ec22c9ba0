"""Tests of `boltax.optim._registry`."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from boltax.errors import OptimizerError, UnknownNameError
from boltax.optim._registry import NOT_BY_NAME, entries, lookup
from boltax.optim._schedules import names as schedules

NAMES = """
    acprop adabelief adadelta adafactor adagrad adam adamax adamaxw adamw adan ademamix adopt
    amsgrad cocob dadapt_adamw dog dowg fromage galore lamb lars lbfgs lion madgrad momo momo_adam
    muon nadam nadamw noisy_sgd novograd optimistic_adam_v2 optimistic_gradient_descent polyak_sgd
    prodigy radam rmsprop rprop schedule_free_adamw schedule_free_sgd sgd sign_sgd signum
    simplified_ademamix sm3 sophia yogi
"""


OURS = ["celo", "celo_adam", "velo"]


def test_every_optimizer_of_optax_has_a_name_or_a_reason() -> None:
    """Fails for an optimizer that is new in optax: look at its decay and its learning rate."""
    assert sorted(entries()) == sorted([*NAMES.split(), *OURS])
    assert all(hasattr(optax.contrib, name) or hasattr(optax, name) for name in NOT_BY_NAME)


def test_names_ignore_case_as_in_the_guide() -> None:
    assert lookup("AdamW").name == "adamw"


@pytest.mark.parametrize("name", [None, 3, "adamm", ["adam"]])
def test_unknown_name_lists_those_that_exist(name: object) -> None:
    with pytest.raises(UnknownNameError, match="expected one of: acprop, adabelief"):
        lookup(name)


@pytest.mark.parametrize("name", NOT_BY_NAME)
def test_what_no_dict_describes_says_why(name: str) -> None:
    with pytest.raises(OptimizerError, match="Hand in the transformation itself"):
        lookup(name)


def test_optax_decays_by_default_only_where_it_is_turned_off() -> None:
    for name, entry in entries().items():
        parameters = inspect.signature(entry.factory).parameters.values()
        defaults = {p.name: p.default for p in parameters if "decay" in p.name}
        decaying = {
            key
            for key, value in defaults.items()
            if key not in {"decay", "decay_rate", "decay_offset", "weight_decay_mask"} and value
        }
        assert decaying <= {"weight_decay"}, name
        assert not decaying or entry.decay == "argument", name


@pytest.mark.parametrize(
    "name", [name for name, entry in entries().items() if entry.decay == "coupled"]
)
def test_coupled_decay_of_optax_is_an_l2_penalty(name: str) -> None:
    """The reason for which `weight_decay` is an error there: the penalty's gradient is the same."""
    params, grads = jnp.asarray([1.0, -2.0]), jnp.asarray([0.5, 0.25])
    factory = entries()[name].factory

    def second_update(weight_decay: float, grads: jax.Array) -> jax.Array:
        tx = factory(learning_rate=0.1, weight_decay=weight_decay)
        state, updates = tx.init(params), grads
        for _ in range(2):
            updates, state = tx.update(grads, state, params)
        return updates

    coupled, penalty = second_update(0.1, grads), second_update(0.0, grads + 0.1 * params)
    np.testing.assert_allclose(coupled, penalty, rtol=1e-5)


def test_what_is_renamed_is_no_argument() -> None:
    for entry in entries().values():
        assert not entry.arguments & {"learning_rate", "mask", "weight_decay_mask", "weight_decay"}
    assert "momentum" in lookup("sgd").arguments
    assert "seed" not in lookup("noisy_sgd").arguments


# What else optax has, so that nothing in it is overlooked: a name that is new there is in none of
# these, and fails the test below.
LINKS = """
    adaptive_grad_clip add_decayed_weights add_noise centralize clip clip_by_block_rms
    clip_by_global_norm differentially_private_aggregate ema identity keep_params_nonnegative
    measure_with_ema normalize normalize_by_update_norm scale set_to_zero snapshot stateless
    stateless_with_tree_map trace zero_nans
"""  # one link of a chain: it processes updates, and trains nothing by itself
WRAPPERS = """
    apply_every apply_if_finite chain conditionally_mask conditionally_transform flatten freeze
    inject_hyperparams inject_stateful_hyperparams masked multi_transform named_chain partition
    selective_transform split_real_and_imaginary with_extra_args_support
"""  # they make a transformation of other ones
FUNCTIONS = """
    apply_updates bias_correction convex_kl_divergence cosine_distance cosine_similarity ctc_loss
    ctc_loss_with_forward_probs generalized_kl_divergence global_norm hinge_loss huber_loss
    hutchinson_estimator_diag_hessian incremental_update init_empty_state join_schedules
    kl_divergence l2_loss log_cosh matrix_inverse_pth_root microbatch monitor multi_normal nnls
    ntxent per_example_global_norm_clip per_example_layer_norm_clip periodic_update power_iteration
    safe_increment safe_int32_increment safe_norm safe_root_mean_squares safe_softmax_cross_entropy
    scale_gradient schedule_free_eval_params sigmoid_binary_cross_entropy sigmoid_focal_loss
    skip_large_updates skip_not_finite smooth_labels softmax_cross_entropy
    softmax_cross_entropy_with_integer_labels squared_error tree_map_params update_infinity_moment
    update_moment update_moment_per_elem_norm value_and_grad_from_state
"""  # losses, norms and the like: no transformations


def test_nothing_of_optax_is_overlooked() -> None:
    """Every function of it is an optimizer or a schedule by name, or is known to be neither."""
    functions = {
        name
        for module in (optax, optax.contrib)
        for name, value in vars(module).items()
        if inspect.isfunction(value) and not name.startswith(("_", "scale_by_"))
    }
    named = {*entries(), *NOT_BY_NAME, *schedules()}
    known = named | {*LINKS.split(), *WRAPPERS.split(), *FUNCTIONS.split()}
    assert functions <= known, sorted(functions - known)
    assert not named & {*LINKS.split(), *WRAPPERS.split(), *FUNCTIONS.split()}

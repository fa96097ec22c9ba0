"""Collectives are counted in what the compiler made: of programs whose number is known."""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from boltax.parallel._collectives import collectives_in


def test_each_place_counts_once():
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))

    def program(x):
        total = jax.lax.psum(x, "data")
        every = jax.lax.all_gather(x * 2, "data", tiled=True)
        turned = jax.lax.ppermute(x + 1, "data", [(0, 1), (1, 0)])
        return total, every.sum() + turned

    spread = jax.shard_map(
        program, mesh=mesh, in_specs=P("data"), out_specs=(P(), P("data")), check_vma=False
    )
    text = jax.jit(spread).lower(jnp.ones(4)).compile().as_text()
    assert collectives_in(text) == {"all-reduce": 1, "all-gather": 1, "collective-permute": 1}
    assert collectives_in(jax.jit(jnp.sin).lower(jnp.ones(4)).compile().as_text()) == {}


def test_those_that_wait_count_where_they_start():
    text = """
      %a = (f32[4]{0}, f32[8]{0}) all-gather-start(f32[4]{0} %x), dimensions={0}
      %b = f32[8]{0} all-gather-done((f32[4]{0}, f32[8]{0}) %a)
      %c = f32[2]{0} reduce-scatter(%b), to_apply=%all-reduce.sum
      %d = bf16[8,4]{1,0:T(8,128)} all-reduce(%c), to_apply=%sum
    """
    assert collectives_in(text) == {"all-reduce": 1, "all-gather": 1, "reduce-scatter": 1}

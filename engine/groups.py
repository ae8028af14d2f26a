"""The groups of a tree that a Posterior offers on request: pointwise log-likelihoods, predictions, the prior."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from pelton.engine.compilation import Compiler, Request
from pelton.engine.errors import ResourceError
from pelton.engine.keys import key_of
from pelton.engine.memory import SHARE, free_memory
from pelton.engine.posterior import Posterior
from pelton.engine.programs import CONSTRAIN_BATCH, seed_words
from pelton.engine.results import dataset

PRIOR_DRAWS = 1000
# What one call of a program may return.
BLOCK_BYTES = 64 * 2**20
MOST_ROWS = 4096
# Keys of predictions and of the prior lie apart from those of the chains, which are numbered from 0.
_PREDICT, _PRIOR = 2**31 + 2, 2**31 + 3


def add_groups(
    tree: xr.DataTree, posterior: Posterior, positions: np.ndarray, groups: Sequence[str], seed: int
) -> xr.DataTree:
    """The tree with further groups, computed after the draws in blocks of bounded memory.

    Args:
        tree: of the draws.
        posterior: what was drawn from; `posterior.extra_groups` names what it offers.
        positions: of the draws [chain, draw, (segment), d].
        groups: of "prior", "prior_predictive", "posterior_predictive" and "log_likelihood".
        seed: of the run; predictions have keys of their own.

    Raises:
        ResourceError: a group would not fit into the memory; the message says how many draws would.
    """
    chains, draws = positions.shape[:2]
    flat = positions.reshape(chains * draws, *positions.shape[2:])
    work = _Work(posterior, seed)
    if {"prior", "prior_predictive"} & set(groups):
        # A prior has no positions to start from.
        values, predicted = work.rows("prior", posterior.prior, np.zeros((PRIOR_DRAWS, *posterior.batch_shape, 0)))
        for name, found in (("prior", values), ("prior_predictive", predicted)):
            if name in groups:
                work.attach(tree, name, found, (1, PRIOR_DRAWS))
    if "posterior_predictive" in groups:
        found = work.rows("posterior_predictive", posterior.predict, flat)
        work.attach(tree, "posterior_predictive", found, (chains, draws))
    if "log_likelihood" in groups:
        found = work.rows("log_likelihood", posterior.loglikelihood, flat)
        work.attach(tree, "log_likelihood", found, (chains, draws))
    return tree


class _Work:
    def __init__(self, posterior: Posterior, seed: int):
        self.posterior = posterior
        self.seed = seed_words(seed)
        self.data = jax.tree.map(jnp.asarray, posterior.data)
        self.compiler = Compiler()

    def rows(self, group: str, function: Any, positions: np.ndarray) -> Any:
        """What the function makes at each position, as NumPy arrays with a leading axis of positions."""
        batched = self.posterior.batch is not None

        def request(size: int) -> Request:
            shape = (size, *positions.shape[1:])
            args = (
                jax.ShapeDtypeStruct(shape, jnp.result_type(float)),
                jax.ShapeDtypeStruct((size,), jnp.uint32),
                self.seed,
                self.data,
            )
            return Request(build_group, (group, function, batched), args)

        one = self.compiler.result_shapes(request(1))
        each = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(one))
        _check_memory(group, each, len(positions))
        most = min(MOST_ROWS, BLOCK_BYTES // max(each, 1), 1 << max(len(positions) - 1, 1).bit_length())
        # A power of two, so that runs of other lengths share the program.
        asked = request(1 << max(int(most), 1).bit_length() - 1)
        program, size = self.compiler(asked), asked.args[0].shape[0]
        stored = jax.tree.map(lambda leaf: np.empty((len(positions), *leaf.shape[1:]), leaf.dtype), one)
        for start in range(0, len(positions), size):
            # The last block is filled up with its last row.
            index = np.minimum(np.arange(start, start + size), len(positions) - 1)
            block = jnp.asarray(positions[index], jnp.result_type(float))
            found = program(block, jnp.asarray(index, jnp.uint32), self.seed, self.data)
            rows = min(size, len(positions) - start)
            for store, leaf in zip(jax.tree.leaves(stored), jax.tree.leaves(found), strict=True):
                store[start : start + rows] = np.asarray(leaf)[:rows]
        return stored

    def attach(self, tree: xr.DataTree, group: str, values: dict[str, np.ndarray], sample: tuple[int, int]) -> None:
        """Values [chain x draw, (segment), ...] as a group of the tree."""
        posterior = self.posterior
        leading = ("chain", "draw", *posterior.batch_dims)
        arrays = {name: value.reshape(*sample, *value.shape[1:]) for name, value in values.items()}
        # A log-likelihood has the axes of its variable without those of one event.
        dims = {
            name: tuple(posterior.dims.get(name, ()))[: array.ndim - len(leading)] for name, array in arrays.items()
        }
        made = dataset(arrays, dims, posterior.coords, leading)
        made.attrs.update(
            {name: tree.attrs[name] for name in ("created_at", "inference_library") if name in tree.attrs}
        )
        tree[group] = xr.DataTree(made)


def _check_memory(group: str, each: int, rows: int) -> None:
    need, free = each * rows, SHARE * free_memory()
    if need > free:
        raise ResourceError(
            f"the group {group!r} of {rows} draws, each of {each} bytes, wants {need / 2**30:.1f} GiB of memory and "
            f"{free / 2**30:.1f} GiB are free: {int(free // each)} draws would fit; draw fewer, or leave the group out"
        )


def build_group(group: str, function: Callable, batched: bool) -> Callable:
    """(positions [row, (segment), d], numbers [row], seed, data) -> what the function makes of each."""
    purpose = {"prior": _PRIOR, "posterior_predictive": _PREDICT}.get(group)

    def one(position: Any, number: Any, segment: Any, seed: Any, data: Any) -> Any:
        if purpose is None:
            return function(position, data)
        key = jax.random.fold_in(key_of(seed), np.uint32(purpose))
        key = jax.random.fold_in(jax.random.fold_in(key, segment), number)
        return function(key, data) if group == "prior" else function(key, position, data)

    def program(positions: Any, numbers: Any, seed: Any, data: Any) -> Any:
        def row(given: tuple[Any, Any]) -> Any:
            position, number = given
            if not batched:
                return one(position, number, np.uint32(0), seed, data)
            segments = jnp.arange(position.shape[0], dtype=jnp.uint32)
            return jax.vmap(one, (0, None, 0, None, 0))(position, number, segments, seed, data)

        return jax.lax.map(row, (positions, numbers), batch_size=min(CONSTRAIN_BATCH, len(numbers)))

    return program

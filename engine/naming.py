"""Positions turned into the model's named variables, in blocks."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pelton.engine.compilation import Compiler, Request
from pelton.engine.posterior import Posterior
from pelton.engine.programs import build_constrain

# Draws that one program names at the most.
_BLOCK = 4096


def constraining(posterior: Posterior, draws: tuple[int, int], data: Any) -> Request:
    """The program that names the variables, for blocks of a power of two, so that runs of other lengths share it."""
    size = min(1 << max(8, int(np.ceil(np.log2(draws[0] * draws[1])))), _BLOCK)
    positions = jax.ShapeDtypeStruct((size, *posterior.batch_shape, posterior.dimension), jnp.result_type(float))
    return Request(build_constrain, (posterior.constrain, posterior.batch is not None), (positions, data))


def named_shapes(posterior: Posterior, leading: tuple[int, int]) -> dict[str, np.ndarray]:
    """Variables of so many chains and draws, without their values."""
    request = constraining(posterior, (1, 1), jax.tree.map(np.asarray, posterior.data))
    data = jax.tree.map(jnp.asarray, request.args[1])
    found = Compiler().result_shapes(request._replace(args=(request.args[0], data)))
    return {name: np.zeros((*leading, *leaf.shape[1:]), leaf.dtype) for name, leaf in found.items()}


def constrained(posterior: Posterior, positions: np.ndarray, compiler: Compiler) -> dict[str, np.ndarray]:
    """Variables [chain, draw, ...] at positions [chain, draw, ...], computed in blocks of one compiled size."""
    chains, draws = positions.shape[:2]
    flat = positions.reshape(chains * draws, *positions.shape[2:])
    data = jax.tree.map(jnp.asarray, posterior.data)
    request = constraining(posterior, (chains, draws), data)
    program, size = compiler(request), request.args[0].shape[0]
    pieces = []
    for start in range(0, len(flat), size):
        block = flat[start : start + size]
        fill = np.repeat(block[-1:], size - len(block), axis=0)
        values = program(jnp.asarray(np.concatenate([block, fill])), data)
        pieces.append({name: np.asarray(value)[: len(block)] for name, value in values.items()})
    return {
        name: np.concatenate([piece[name] for piece in pieces]).reshape(chains, draws, *pieces[0][name].shape[1:])
        for name in pieces[0]
    }

"""R-hat, effective sample sizes and Monte Carlo errors of stored draws, as JAX programs over blocks of parameters.

Draws are [chain, draw, parameter], of any real type. The work is done in float64 where JAX has it enabled
(`pelton.engine.precision.using`) and in float32 elsewhere: ranks and indicators come from the draws as they are,
moments from centred draws, so that a large mean costs no digits. A block of parameters at a time is transposed, sorted
and transformed; its width follows from `memory`, the bytes that the temporaries of a block may take (at least those of
one parameter).

Everywhere a parameter has NaN if it never moves, if one of its draws is not finite, or if there are fewer than four
draws a chain; R-hat is NaN for one chain. The figures are those of ArviZ 1.3, which differs in two places: it takes
infinite draws into the ranks, and gives constants the ESS of independent draws.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import ndtri
from jaxtyping import Array, Bool, Float, Int, Num
from scipy.fft import next_fast_len

from pelton.engine.compilation import Compiler, Request
from pelton.engine.errors import ArgumentError

type Draws = Num[Array | np.ndarray, "chain draw parameter"]
type PerParameter = Float[Array, " parameter"]

# Chains are split in two, and a variance wants two draws.
LEAST_DRAWS = 4
# The quantiles whose indicators have the tail ESS, as in Vehtari et al. 2021.
TAILS = (0.05, 0.95)
# Bytes of a block. A CPU is as fast with 2 as with 32 MiB and slower from 128; an accelerator wants many parameters at
# once.
MEMORY = {"cpu": 16 * 2**20}
MEMORY_ELSEWHERE = 2**30
# Arrays as large as a block that are alive at once, at the Fourier transforms of five series: padded to twice, complex.
TEMPORARIES = 40


def _by_blocks(measure: Callable[[Array], Any], draws: Array | np.ndarray, memory: int | None) -> Any:
    """The pytree of measure(block [parameter, chain, draw]), whose leaves begin with the parameters, of all blocks."""
    draws = jnp.asarray(draws)
    chains, count, parameters = draws.shape
    dtype = jnp.result_type(float)
    if memory is None:
        memory = MEMORY.get(jax.default_backend(), MEMORY_ELSEWHERE)
    each = max(1, chains * count * dtype.itemsize * TEMPORARIES)
    width = max(1, min(parameters, memory // each))

    def measured(start: Any) -> Any:
        block = lax.dynamic_slice_in_dim(draws, start, width, axis=2)
        return measure(jnp.moveaxis(block.astype(dtype), 2, 0))

    if parameters == width:
        return measured(0)
    shapes = jax.eval_shape(measure, jax.ShapeDtypeStruct((width, chains, count), dtype))
    room = jax.tree.map(lambda part: jnp.zeros((parameters, *part.shape[1:]), part.dtype), shapes)
    if parameters == 0:
        return room

    def body(i: Any, room: Any) -> Any:
        # The last block is as wide as the others: some of its parameters are measured twice.
        start = jnp.minimum(i * width, parameters - width)
        return jax.tree.map(
            lambda whole, part: lax.dynamic_update_slice_in_dim(whole, part, start, axis=0), room, measured(start)
        )

    return lax.fori_loop(0, -(-parameters // width), body, room)


def _judged(block: Array) -> Bool[Array, " parameter"]:
    """Whether a parameter's draws are finite and not all the same."""
    flat = block.reshape(len(block), -1)
    return jnp.all(jnp.isfinite(flat), axis=1) & (jnp.max(flat, axis=1) > jnp.min(flat, axis=1))


def _halves(block: Array) -> Array:
    """Each chain as two, [parameter, 2 chain, draw // 2]; of an odd number of draws the middle one is left out."""
    count = block.shape[2]
    half = count // 2
    return jnp.concatenate([block[..., :half], block[..., count - half :]], axis=1)


def _centred(block: Array) -> Array:
    return block - jnp.mean(block, axis=(1, 2), keepdims=True)


def _keys(values: Array) -> Array:
    """Whole numbers in the order of the floats: XLA sorts them twice as fast on a CPU."""
    integer = jnp.int64 if values.dtype == jnp.float64 else jnp.int32
    # Minus zero ties with zero.
    bits = lax.bitcast_convert_type(jnp.where(values == 0, jnp.zeros_like(values), values), integer)
    return jnp.where(bits < 0, bits ^ jnp.iinfo(integer).max, bits)


def _floats(keys: Array) -> Array:
    """The floats of the keys."""
    bits = jnp.where(keys < 0, keys ^ jnp.iinfo(keys.dtype).max, keys)
    return lax.bitcast_convert_type(bits, jnp.float64 if keys.dtype == jnp.int64 else jnp.float32)


def _scores(block: Array) -> tuple[Array, Array]:
    """Rank-normalised draws, shaped as the block, and the sorted keys [parameter, chain * draw]."""
    flat = block.reshape(len(block), -1)
    size = flat.shape[1]
    at = jnp.arange(size, dtype=jnp.int32)
    keys, places = lax.sort((_keys(flat), jnp.broadcast_to(at, flat.shape)), dimension=1, num_keys=1, is_stable=False)
    fresh = keys[:, 1:] != keys[:, :-1]
    edge = jnp.ones((len(flat), 1), bool)
    first = lax.cummax(jnp.where(jnp.concatenate([edge, fresh], axis=1), at, 0), axis=1)
    last = lax.cummin(jnp.where(jnp.concatenate([fresh, edge], axis=1), at, size - 1), axis=1, reverse=True)
    # Ties share the mean of their ranks, r = 1 + (first + last) / 2: there are 2 S - 1 possible scores. The upper half
    # mirrors the lower one, whose probabilities keep their digits in float32.
    doubled = jnp.arange(2 * size - 1)
    rank = 1 + jnp.minimum(doubled, 2 * size - 2 - doubled).astype(block.dtype) / 2
    table = jnp.sign(size - 1 - doubled) * ndtri((rank - 3 / 8) / (size + 1 / 4))
    rows = jnp.arange(len(flat))[:, None]
    scores = jnp.zeros_like(flat).at[rows, places].set(table[first + last], unique_indices=True)
    return scores.reshape(block.shape), keys


def _rhat(chains: Array) -> Array:
    """sqrt((B / W + N - 1) / N) of chains [parameter, chain, draw] as they are."""
    count = chains.shape[2]
    between = count * jnp.var(jnp.mean(chains, axis=2), axis=1, ddof=1)
    within = jnp.mean(jnp.var(chains, axis=2, ddof=1), axis=1)
    return jnp.sqrt((between / within + count - 1) / count)


def _rank_rhat(split: Array, scores: Array, ordered: Array) -> Array:
    """The larger R-hat of the scores and of the scores of distances from the median."""
    # Split chains have an even number of draws together.
    middle = ordered.shape[1] // 2
    lower, upper = _floats(ordered[:, middle - 1]), _floats(ordered[:, middle])
    folded, _ = _scores(jnp.abs(split - ((lower + upper) / 2)[:, None, None]))
    bulk, tail = _rhat(scores), _rhat(folded)
    # Draws of two values are all as far from the median: their tail says nothing.
    return jnp.where(jnp.isnan(tail), bulk, jnp.maximum(bulk, tail))


def _ess(chains: Array) -> Array:
    """ESS of the mean of chains [..., chain, draw] as they are: S / tau, at most S log10(S), S for a constant.

    With rho_t = 1 - (W - mean autocovariance at lag t) / var_plus and the pair sums P_k = rho_2k + rho_2k+1,
    tau = -1 + 2 sum_{k<K} min_{j<=k} P_j + rho_2K, where K is the first pair that is not positive, or the last there is
    (Geyer 1992; Stan reference manual 15.4; the truncation is ArviZ's).
    """
    count = chains.shape[-1]
    size = chains.shape[-2] * count
    mean = jnp.mean(chains, axis=-1, keepdims=True)
    length = int(next_fast_len(2 * count, real=True))  # pyright: ignore[reportArgumentType]
    spectrum = jnp.fft.rfft(chains - mean, n=length, axis=-1)
    # The transform is linear: the chains' mean is taken before the way back.
    power = jnp.mean(spectrum.real**2 + spectrum.imag**2, axis=-2)
    covariance = jnp.fft.irfft(power, n=length, axis=-1)[..., :count] / count
    within = covariance[..., :1] * count / (count - 1)
    total = covariance[..., :1] + jnp.var(mean, axis=-2, ddof=1)
    rho = (1 - (within - covariance) / total).at[..., 0].set(1.0)
    most = max(0, (count - 3) // 2)
    even, odd = rho[..., 0 : 2 * most + 1 : 2], rho[..., 1 : 2 * most + 2 : 2]
    pair = even + odd
    ended = pair <= 0
    stop = jnp.where(jnp.any(ended, axis=-1), jnp.argmax(ended, axis=-1), most)[..., None]
    kept = jnp.sum(jnp.where(jnp.arange(most + 1) < stop, lax.cummin(pair, axis=pair.ndim - 1), 0), axis=-1)
    last_even = jnp.take_along_axis(even, stop, axis=-1)[..., 0]
    last_pair = jnp.take_along_axis(pair, stop, axis=-1)[..., 0]
    tau = -1 + 2 * kept + jnp.where((last_pair >= 0) | (last_even > 0), last_even, 0)
    ess = size / jnp.maximum(tau, 1 / np.log10(size))
    ess = jnp.where(jnp.isfinite(rho[..., 1]), ess, jnp.nan)
    constant = jnp.max(chains, axis=(-2, -1)) == jnp.min(chains, axis=(-2, -1))
    return jnp.where(constant, size, ess)


def _tail_indicators(block: Array, ordered: Array) -> list[Array]:
    """Whether a draw is at most the 5% (95%) quantile, of split chains.

    The quantile lies between two neighbours in order, so that the lower one decides the same.
    """
    size = block.shape[1] * block.shape[2]
    if ordered.shape[1] < size:
        # The draw in the middle that the split leaves out belongs to the quantiles.
        ordered = lax.sort(_keys(block.reshape(len(block), -1)), dimension=1, is_stable=False)
    split = _keys(_halves(block))
    return [
        (split <= ordered[:, int(np.floor((size - 1) * prob))][:, None, None]).astype(block.dtype) for prob in TAILS
    ]


def _measures(block: Array, errors: bool) -> dict[str, Array]:
    """Everything `summary` gives, of one block."""
    chains, count = block.shape[1:]
    middle = jnp.mean(block, axis=(1, 2))
    centred = block - middle[:, None, None]
    rest = jnp.mean(centred, axis=(1, 2))
    found = {"mean": middle + rest, "sd": jnp.std(centred, axis=(1, 2), ddof=1)}
    nothing = jnp.full(len(block), jnp.nan, block.dtype)
    if count < LEAST_DRAWS:
        names = ("rhat", "ess_bulk", "ess_tail", *(("ess_mean", "mcse_mean", "mcse_sd") if errors else ()))
        return found | dict.fromkeys(names, nothing)
    split = _halves(block)
    scores, ordered = _scores(split)
    series = [scores, *_tail_indicators(block, ordered)]
    square = (centred - rest[:, None, None]) ** 2
    if errors:
        series += [_halves(centred), _halves(square)]
    bulk, low, high, *others = _ess(jnp.stack(series))
    judged = {
        "rhat": _rank_rhat(split, scores, ordered) if chains > 1 else nothing,
        "ess_bulk": bulk,
        "ess_tail": jnp.minimum(low, high),
    }
    if errors:
        ess_mean, ess_square = others
        variance = jnp.mean(square, axis=(1, 2))
        spread = jnp.mean((square - variance[:, None, None]) ** 2, axis=(1, 2))
        judged["ess_mean"] = ess_mean
        judged["mcse_mean"] = found["sd"] / jnp.sqrt(ess_mean)
        judged["mcse_sd"] = jnp.sqrt(spread / ess_square / variance / 4)
    valid = _judged(block)
    return found | {name: jnp.where(valid, values, jnp.nan) for name, values in judged.items()}


def _build_summary(errors: bool, memory: int | None, placement: Any) -> Callable:
    del placement  # A program belongs to the devices of its arguments: the compiler must tell them apart.
    return partial(_by_blocks, partial(_measures, errors=errors), memory=memory)


def summary(
    draws: Draws, *, errors: bool = True, memory: int | None = None, compiler: Compiler | None = None
) -> dict[str, PerParameter]:
    """Mean, sd, R-hat, effective sample sizes and Monte Carlo errors of every parameter, in one program.

    It is compiled once for a shape and a type of draws, and runs on the device where the draws are.

    Args:
        draws: [chain, draw, parameter].
        errors: whether to work out ess_mean, mcse_mean and mcse_sd too.
        memory: bytes that the temporaries of a block of parameters may take; by default 16 MiB on a CPU and 1 GiB on
            an accelerator.
        compiler: that counts the seconds spent compiling.

    Returns:
        mean, sd, rhat (the larger of bulk and tail), ess_bulk, ess_tail, and with errors ess_mean, mcse_mean, mcse_sd,
        each [parameter].

    >>> import numpy as np
    >>> draws = np.random.default_rng(0).normal(size=(4, 500, 2))
    >>> found = summary(draws)
    >>> bool((found["rhat"] < 1.01).all() and (found["ess_bulk"] > 1000).all())
    True
    """
    draws = jnp.asarray(draws)
    devices = draws.devices()
    device = next(iter(devices)) if len(devices) == 1 else None
    program = (compiler or Compiler())(Request(_build_summary, (errors, memory, draws.sharding), (draws,), device))
    return program(draws)


@partial(jax.jit, static_argnames="memory")
def rank_normalized(draws: Draws, memory: int | None = None) -> Float[Array, "chain draw parameter"]:
    """Phi^-1((r - 3/8) / (S + 1/4)), with r the draw's rank among all S draws of its parameter; ties share their mean.

    Vehtari et al. 2021, equation 14. [chain, draw, parameter]; NaN where a draw is not finite.
    """

    def measure(block: Array) -> Array:
        finite = jnp.all(jnp.isfinite(block), axis=(1, 2), keepdims=True)
        return jnp.where(finite, _scores(block)[0], jnp.nan)

    return jnp.moveaxis(_by_blocks(measure, draws, memory), 0, 2)


def _per_parameter(measure: Callable[[Array], Array], draws: Draws, memory: int | None, least_chains: int = 1) -> Array:
    """The measure of split chains, NaN where it cannot be judged."""

    def judged(block: Array) -> Array:
        return jnp.where(_judged(block), measure(block), jnp.nan)

    if draws.shape[0] < least_chains or draws.shape[1] < LEAST_DRAWS:
        return jnp.full(draws.shape[2], jnp.nan)
    return _by_blocks(judged, draws, memory)


@partial(jax.jit, static_argnames="memory")
def split_rhat(draws: Draws, memory: int | None = None) -> PerParameter:
    """sqrt(((N - 1) / N W + B / N) / W) of the halves of chains, N draws each, without ranks.

    B = N times the variance of their means, W = the mean of their variances. Gelman et al. 2013, section 11.4.
    """
    return _per_parameter(lambda block: _rhat(_halves(_centred(block))), draws, memory, least_chains=2)


@partial(jax.jit, static_argnames="memory")
def rhat(draws: Draws, memory: int | None = None) -> PerParameter:
    """The larger split R-hat of rank-normalised draws (bulk) and of rank-normalised distances from the median (tail).

    Vehtari et al. 2021, sections 4.1 and 4.2.
    """

    def measure(block: Array) -> Array:
        split = _halves(block)
        return _rank_rhat(split, *_scores(split))

    return _per_parameter(measure, draws, memory, least_chains=2)


@partial(jax.jit, static_argnames="memory")
def ess_bulk(draws: Draws, memory: int | None = None) -> PerParameter:
    """Effective sample size of the mean of the rank-normalised draws, over split chains. Vehtari et al. 2021, 4.3."""
    return _per_parameter(lambda block: _ess(_scores(_halves(block))[0]), draws, memory)


@partial(jax.jit, static_argnames="memory")
def ess_tail(draws: Draws, memory: int | None = None) -> PerParameter:
    """The smaller effective sample size of the indicators of the 5% and 95% quantiles. Vehtari et al. 2021, 4.3."""

    def measure(block: Array) -> Array:
        ordered = lax.sort(_keys(block.reshape(len(block), -1)), dimension=1, is_stable=False)
        return jnp.min(_ess(jnp.stack(_tail_indicators(block, ordered))), axis=0)

    return _per_parameter(measure, draws, memory)


@partial(jax.jit, static_argnames="memory")
def ess_mean(draws: Draws, memory: int | None = None) -> PerParameter:
    """Effective sample size of the mean, over split chains."""
    return _per_parameter(lambda block: _ess(_halves(_centred(block))), draws, memory)


def nested_rhat(draws: Draws, superchains: Sequence[int] | np.ndarray, *, memory: int | None = None) -> PerParameter:
    """sqrt(1 + B / W) of superchains, which are groups of many short chains from one start.

    B is the variance of the superchains' means. W is the mean over superchains of the variance of their chains' means
    plus the mean of their chains' variances; the first is 0 where a superchain is one chain, the second where a chain
    is one draw. Draws are neither split nor ranked. Margossian et al. 2024, arXiv 2110.13017, equations 4 to 8.

    Args:
        draws: [chain, draw, parameter], of at least one draw.
        superchains: for each chain the whole number, 0 or more, of its superchain.
        memory: bytes that the temporaries of a block of parameters may take; by default 16 MiB on a CPU and 1 GiB on
            an accelerator.

    Raises:
        ArgumentError: fewer than two superchains, superchains of unequal size, or one draw of one chain each.
    """
    labels, group = np.unique(np.asarray(superchains), return_inverse=True)
    sizes = np.bincount(group, minlength=1)
    if group.shape != (draws.shape[0],):
        raise ArgumentError(
            f"superchains has one label a chain, not {group.shape} for {draws.shape[0]} chains; name each chain's start"
        )
    if len(labels) < 2 or sizes.min() != sizes.max():
        raise ArgumentError(
            f"superchains are two or more of one size, not of sizes {sizes.tolist()}; leave out the chains too many"
        )
    if sizes[0] == 1 and draws.shape[1] == 1:
        raise ArgumentError("superchains of one chain of one draw have no variance; give more chains or draws")
    order = np.argsort(group, kind="stable").reshape(len(labels), sizes[0])
    return _nested_rhat(draws, order, memory)


@partial(jax.jit, static_argnames="memory")
def _nested_rhat(draws: Draws, order: Int[Array | np.ndarray, "superchain member"], memory: int | None) -> PerParameter:
    def measure(block: Array) -> Array:
        centred = _centred(block)
        mean = jnp.mean(centred, axis=2)[:, order]
        between = jnp.var(jnp.mean(mean, axis=2), axis=1, ddof=1)
        within = jnp.zeros(len(block), block.dtype)
        if order.shape[1] > 1:
            within = within + jnp.mean(jnp.var(mean, axis=2, ddof=1), axis=1)
        if block.shape[2] > 1:
            within = within + jnp.mean(jnp.var(centred, axis=2, ddof=1), axis=1)
        return jnp.where(_judged(block), jnp.sqrt(1 + between / within), jnp.nan)

    return _by_blocks(measure, draws, memory)


@jax.jit
def frozen(draws: Draws) -> Bool[Array, "chain parameter"]:
    """Whether a chain's parameter never moves, [chain, parameter]; True for one draw."""
    return jnp.all(draws == draws[:, :1], axis=1)


@jax.jit
def bfmi(energy: Float[Array | np.ndarray, "chain draw"]) -> Float[Array, " chain"]:
    """Energy Bayesian fraction of missing information of each chain: mean (E_n - E_n-1)^2 / variance of E.

    Betancourt 2016, arXiv 1604.00695, equation 4. NaN for a constant energy.
    """
    centred = (energy - jnp.mean(energy, axis=1, keepdims=True)).astype(jnp.result_type(float))
    return jnp.mean(jnp.diff(centred, axis=1) ** 2, axis=1) / jnp.var(centred, axis=1, ddof=1)


@jax.jit
def share(flags: Bool[Array | np.ndarray, "chain draw"]) -> Float[Array, " chain"]:
    """Share of each chain's transitions that are flagged: reached_max_tree_depth gives its saturated trees."""
    return jnp.mean(flags, axis=1, dtype=jnp.result_type(float))


@jax.jit
def total(flags: Bool[Array | np.ndarray, "chain draw"]) -> Int[Array, " chain"]:
    """How many of each chain's transitions are flagged: diverging gives its divergences."""
    return jnp.sum(flags, axis=1)

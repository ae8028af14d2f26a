"""Benchmark of the fused media term: its gradient against an obvious composition and a convolution.

Run `python -m pelton.benchmarks.kernel_media`. Every rival gives the value and the gradient by all four
parameters of half a sum of squared errors; both are checked against float64 before anything is timed. Rivals
take turns within a round, so that a busy machine slows all alike; a ratio is the median over rounds.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from pelton.kernels.media import geometric_hill


class Panel(NamedTuple):
    """Spend [geo, time, channel], the four parameters [geo, channel] and a target [geo, time]."""

    spend: Array
    alpha: Array
    half_saturation: Array
    slope: Array
    coef: Array
    target: Array


class Report(NamedTuple):
    """What one rival cost, per element of spend, and how far it is from float64."""

    name: str
    ns: float
    slower: float
    bytes_moved: float
    error: float


def simulate(geos: int = 50, weeks: int = 208, channels: int = 30, seed: int = 0) -> Panel:
    """A panel with a fifth of the spends zero, in float32.

    >>> simulate(2, 5, 3).spend.shape
    (2, 5, 3)
    """
    rng = np.random.default_rng(seed)
    cell = (geos, channels)
    size = (geos, weeks, channels)
    arrays = (
        rng.gamma(0.5, 2.0, size) * (rng.random(size) < 0.8),
        rng.uniform(0.1, 0.9, cell),
        rng.uniform(0.5, 2.0, cell),
        rng.uniform(1.0, 3.0, cell),
        rng.uniform(0.1, 1.0, cell),
        rng.normal(size=(geos, weeks)),
    )
    return Panel(*(jnp.asarray(array, jnp.float32) for array in arrays))


def stacked_lags(spend: Array, params: tuple[Array, Array, Array, Array], l_max: int) -> Array:
    """The obvious composition: lags stacked on a new axis and weighted, then x**s twice."""
    alpha, k, s, coef = params
    weeks = spend.shape[-2]
    padded = jnp.pad(spend, ((0, 0), (l_max - 1, 0), (0, 0)))
    lags = jnp.stack([padded[:, l_max - 1 - lag : l_max - 1 - lag + weeks] for lag in range(l_max)], -1)
    return _hill_sum((lags * _weights(alpha, l_max)[:, None]).sum(-1), k, s, coef)


def depthwise_convolution(spend: Array, params: tuple[Array, Array, Array, Array], l_max: int) -> Array:
    """One convolution with a group for each geo and channel, then x**s twice."""
    alpha, k, s, coef = params
    geos, weeks, channels = spend.shape
    series = spend.transpose(1, 0, 2).reshape(1, weeks, geos * channels)
    kernel = _weights(alpha, l_max).reshape(geos * channels, l_max).T[::-1, None]
    x = lax.conv_general_dilated(
        series,
        kernel,
        window_strides=(1,),
        padding=[(l_max - 1, 0)],
        dimension_numbers=("NWC", "WIO", "NWC"),
        feature_group_count=geos * channels,
    )
    return _hill_sum(x.reshape(weeks, geos, channels).transpose(1, 0, 2), k, s, coef)


def fused(spend: Array, params: tuple[Array, Array, Array, Array], l_max: int) -> Array:
    """`pelton.kernels.media.geometric_hill`."""
    return geometric_hill(spend, *params, l_max=l_max)


RIVALS: dict[str, Callable[..., Array]] = {
    "stacked lags, x**s": stacked_lags,
    "depthwise convolution": depthwise_convolution,
    "pelton, fused": fused,
}


def gradient(effect: Callable[..., Array], l_max: int) -> jax.stages.Wrapped:
    """Half the sum of squared errors and its gradient by alpha, half-saturation, slope and coefficient."""

    def loss(params: tuple[Array, ...], spend: Array, target: Array) -> Array:
        error = effect(spend, params, l_max) - target
        return 0.5 * (error * error).sum()

    return jax.jit(jax.value_and_grad(loss))


def errors(panel: Panel, l_max: int) -> dict[str, float]:
    """Each rival's largest distance from float64, as a share of the largest entry of each result.

    Raises:
        AssertionError: a rival is further off than a float32 sum over the weeks may be, weeks * epsilon.

    >>> sorted(errors(simulate(2, 30, 3), 4)) == sorted(RIVALS)
    True
    """
    with jax.enable_x64(True):
        double = Panel(*(jnp.asarray(np.asarray(array), jnp.float64) for array in panel))
        exact = jax.device_get(gradient(stacked_lags, l_max)(double[1:5], double.spend, double.target))
    found = {}
    for name, effect in RIVALS.items():
        result = jax.device_get(gradient(effect, l_max)(panel[1:5], panel.spend, panel.target))
        found[name] = max(
            float(np.abs(a - b).max() / np.abs(b).max())
            for a, b in zip(jax.tree.leaves(result), jax.tree.leaves(exact), strict=True)
        )
        bound = panel.spend.shape[1] * float(np.finfo(np.float32).eps)
        assert found[name] <= bound, f"{name} is {found[name]:.1e} from float64, more than {bound:.1e}"
    return found


def copy_bandwidth(bytes_in_array: int, rounds: int = 20) -> float:
    """Gigabytes a second, read and written, of adding 1 to a float32 array."""
    array = jnp.zeros(bytes_in_array // 4, jnp.float32)
    add = jax.jit(lambda x: x + 1.0)
    jax.block_until_ready(add(array))
    return 2 * array.nbytes / statistics.median(_seconds(add, array) for _ in range(rounds)) / 1e9


def compare(panel: Panel, l_max: int = 13, rounds: int = 15) -> list[Report]:
    """Time all rivals in turn; `slower` is the median over rounds of their time over the fused one's."""
    off = errors(panel, l_max)
    compiled, moved = {}, {}
    for name, effect in RIVALS.items():
        args = (panel[1:5], panel.spend, panel.target)
        compiled[name] = gradient(effect, l_max).lower(*args).compile()
        moved[name] = compiled[name].cost_analysis().get("bytes accessed", float("nan"))
        jax.block_until_ready(compiled[name](*args))
    seconds: dict[str, list[float]] = {name: [] for name in RIVALS}
    for _ in range(rounds):
        for name, run in compiled.items():
            # The quick one is timed as the median of a few, or a single interruption would make its round.
            repeats = 5 if name == "pelton, fused" else 1
            seconds[name].append(
                statistics.median(_seconds(run, panel[1:5], panel.spend, panel.target) for _ in range(repeats))
            )
    ours = seconds["pelton, fused"]
    size = panel.spend.size
    return [
        Report(
            name,
            1e9 * statistics.median(taken) / size,
            statistics.median(a / b for a, b in zip(taken, ours, strict=True)),
            moved[name] / size,
            off[name],
        )
        for name, taken in seconds.items()
    ]


def main(argv: list[str] | None = None) -> None:
    """Print the comparison and how far the fused gradient is from the machine's copy bandwidth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    defaults = {"geos": 50, "weeks": 208, "channels": 30, "lags": 13, "rounds": 15}
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args(argv)
    panel = simulate(given.geos, given.weeks, given.channels)
    device = jax.devices()[0]
    print(f"jax {jax.__version__} on {device.platform} ({device.device_kind}), float32")
    print(f"{given.geos} geos x {given.weeks} weeks x {given.channels} channels, {given.lags} lags, gradient")
    reports = compare(panel, given.lags, given.rounds)
    near, far = copy_bandwidth(panel.spend.nbytes), copy_bandwidth(256 * 2**20, 5)
    print(f"{'':24}{'ns/element':>12}{'time/ours':>12}{'bytes/element':>15}{'GB/s':>8}{'off float64':>13}")
    for report in reports:
        rate = report.bytes_moved / report.ns
        print(
            f"{report.name:24}{report.ns:12.2f}{report.slower:12.2f}{report.bytes_moved:15.0f}"
            f"{rate:8.1f}{report.error:13.1e}"
        )
    ours = reports[-1]
    print(f"copy bandwidth: {near:.1f} GB/s on an array of this size, {far:.1f} GB/s on 256 MiB")
    print(
        f"ours: {ours.bytes_moved / ours.ns / near:.2f} of the copy bandwidth, by the bytes XLA counts "
        f"for its loops, reads from cache included; as long as {ours.ns * near / 8:.1f} copies of spend"
    )


def _weights(alpha: Array, l_max: int) -> Array:
    weights = alpha[..., None] ** jnp.arange(l_max, dtype=alpha.dtype)
    return weights / weights.sum(-1, keepdims=True)


def _hill_sum(x: Array, k: Array, s: Array, coef: Array) -> Array:
    k, s, coef = k[:, None], s[:, None], coef[:, None]
    return (coef * (x**s / (x**s + k**s))).sum(-1)


def _seconds(run: Callable[..., object], *args: object) -> float:
    start = time.perf_counter()
    jax.block_until_ready(run(*args))
    return time.perf_counter() - start


if __name__ == "__main__":
    main()

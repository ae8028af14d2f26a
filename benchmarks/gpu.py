"""What one device does: many stores, media mixes and many chains, against the same on the processor.

    python -m pelton.benchmarks.gpu [--tiny] [--results FILE]

Measured in float32: time to 1,000 effective draws of the hyperparameters of 1e6, 1e7 and 1e8 stores, and of summaries
of all units; gradients and a short run of vectorised NUTS on media mixes of 200 x 156 x 10 and 644 x 365 x 27 (geos,
weeks, channels); eight markets with 4 to 2,048 chains. Each is measured on the default device and on the processor. The
record holds the bandwidth of a copy measured in the same run, and the bytes that a gradient reads at the least, from
which follows how near to the memory's speed it is. `--tiny` runs the same code at sizes for a test.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from pelton.benchmarks.record import append, commit, machine, versions

STORES, TINY_STORES = (10**6, 10**7, 10**8), (2000,)
PANELS, TINY_PANELS = ((200, 156, 10), (644, 365, 27)), ((3, 30, 2),)
CHAINS, TINY_CHAINS = (4, 64, 512, 2048), (2,)
COPY_BYTES, TINY_COPY_BYTES = 2**30, 2**20
EFFECTIVE = 1000
REPEATS = 10


def seconds_of(call: Any, repeats: int = REPEATS) -> float:
    """The median over calls after one that compiles, each waited for."""
    import jax

    jax.block_until_ready(call())
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(call())
        found.append(time.perf_counter() - began)
    return float(np.median(found))


def copy_bandwidth(device: Any, size: int) -> float:
    """Bytes a second of reading an array and writing another, both counted."""
    import jax
    import jax.numpy as jnp

    values = jax.device_put(jnp.zeros(size // 4, jnp.float32), device)
    copy = jax.jit(lambda array: array + 1.0)
    return 2 * size / seconds_of(lambda: copy(values))


def peak_bytes(device: Any) -> int | None:
    """The most memory that the device has held, where it says so."""
    stats = device.memory_stats() if device.platform != "cpu" else None
    return None if stats is None else int(stats["peak_bytes_in_use"])


def stores(units: int, platform: str) -> dict[str, Any]:
    """Time to 1,000 effective draws of the hyperparameters, and to summaries of all units."""
    import pelton

    source = np.random.default_rng(units)
    trials = source.integers(60, 160, units, endpoint=True)
    model = pelton.PartialPooling(source.binomial(trials, source.beta(2.5, 8.0, units)), trials)
    settings: dict[str, Any] = {"device": platform, "precision": "float32", "progress": False}
    pelton.sample(model.posterior(), **settings)
    began = time.perf_counter()
    tree = pelton.sample(model.posterior(), seed=1, **settings)
    drawing = time.perf_counter() - began
    ess = float(tree.attrs["least_ess_bulk"])
    began = time.perf_counter()
    tree = model.finish(tree, seed=1)
    pelton.unit_summary(tree)
    return {
        "case": "stores",
        "units": units,
        "seconds_to_1000_effective": round(drawing * min(1.0, EFFECTIVE / ess), 4),
        "seconds_sampling": round(drawing, 4),
        "seconds_unit_summaries": round(time.perf_counter() - began, 2),
        "ess": round(ess, 0),
    }


def panel_model(geos: int, weeks: int, channels: int) -> Any:
    """A hierarchical media mix of simulated data."""
    import pelton

    markets = pelton.simulate_media(geos=geos, weeks=[weeks] * geos, channels=channels, seed=1)
    known = {"date", "market", "sales", "price_index", "holiday"}
    media = [str(name) for name in markets.frame.columns if name not in known][:channels]
    panel = pelton.Panel.from_frame(markets.frame, time="date", geo="market", target="sales", media=media)
    return pelton.MediaMix(panel)


def media_mix(shape: tuple[int, int, int], device: Any, bandwidth: float, *, draws: int, warmup: int) -> dict[str, Any]:
    """Seconds of a gradient and of a short run, and the share of the memory's speed that the gradient reaches."""
    import jax
    import jax.numpy as jnp

    import pelton
    from pelton.engine.precision import using

    posterior = panel_model(*shape).posterior()
    with using("float32"), jax.default_device(device):
        data = jax.device_put(jax.tree.map(jnp.asarray, posterior.data), device)
        position = jax.device_put(posterior.start(jax.random.key(0), data), device)
        gradient = jax.jit(jax.value_and_grad(posterior.logdensity))
        seconds = seconds_of(lambda: gradient(position, data))
    read = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(data))
    tree = pelton.sample(
        posterior,
        sampler="nuts",
        chain_method="vectorized",
        draws=draws,
        warmup=warmup,
        device=device.platform,
        precision="float32",
        progress=False,
    )
    return {
        "case": "media mix",
        "shape": list(shape),
        "dimension": posterior.dimension,
        "seconds_gradient": seconds,
        "bytes_read": int(read),
        "share_of_copy_bandwidth": round(read / seconds / bandwidth, 4),
        "seconds_sampling": round(float(tree.attrs["seconds_sampling"]), 3),
        "seconds_warmup": round(float(tree.attrs["seconds_warmup"]), 3),
        "seconds_compiling": round(float(tree.attrs["seconds_compiling"]), 1),
        "gradients": int(tree.attrs["gradients_computed"]),
        "draws": draws,
    }


def many_chains(chains: int, device: Any, *, tiny: bool) -> dict[str, Any]:
    """Effective draws a second of vectorised NUTS on eight markets."""
    import pelton

    model = panel_model(8, 24 if tiny else 104, 1 if tiny else 6)
    draws, warmup = (20, 20) if tiny else (max(50, 1000 * 4 // chains), 300)
    tree = pelton.sample(
        model.posterior(),
        sampler="nuts",
        chain_method="vectorized",
        chains=chains,
        draws=draws,
        warmup=warmup,
        device=device.platform,
        precision="float32",
        progress=False,
    )
    seconds = float(tree.attrs["seconds_warmup"]) + float(tree.attrs["seconds_sampling"])
    return {
        "case": "chains",
        "chains": chains,
        "draws": draws,
        "seconds": round(seconds, 3),
        "ess": round(float(tree.attrs["least_ess_bulk"]), 1),
        "ess_per_second": round(float(tree.attrs["least_ess_bulk"]) / seconds, 2),
        "gradients_per_second": round(float(tree.attrs["gradients_computed"]) / seconds, 1),
    }


def measure(*, tiny: bool) -> list[dict[str, Any]]:
    """One record a case and device."""
    import warnings

    import jax

    from pelton.engine.errors import ConvergenceWarning

    devices = {device.platform: device for device in (jax.devices()[0], jax.devices("cpu")[0])}
    records = []
    with warnings.catch_warnings():
        # Short runs are not for their draws.
        warnings.simplefilter("ignore", ConvergenceWarning)
        for platform, device in devices.items():
            bandwidth = copy_bandwidth(device, TINY_COPY_BYTES if tiny else COPY_BYTES)
            seen = {"device": str(device.device_kind), "platform": platform, "copy_bytes_per_second": round(bandwidth)}
            for units in TINY_STORES if tiny else STORES:
                records.append({**seen, **stores(units, platform), "peak_bytes": peak_bytes(device)})
            for shape in TINY_PANELS if tiny else PANELS:
                lengths = {"draws": 10, "warmup": 10} if tiny else {"draws": 100, "warmup": 100}
                found = media_mix(shape, device, bandwidth, **lengths)
                records.append({**seen, **found, "peak_bytes": peak_bytes(device)})
            for chains in TINY_CHAINS if tiny else CHAINS:
                found = many_chains(chains, device, tiny=tiny)
                records.append({**seen, **found, "peak_bytes": peak_bytes(device)})
    return records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="sizes for a test")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/gpu.jsonl"))
    asked = parser.parse_args()
    setting = {"machine": machine(), "versions": versions(), "commit": commit(), "tiny": asked.tiny}
    for record in measure(tiny=asked.tiny):
        append(asked.results, {**setting, **record})
        print(record)


if __name__ == "__main__":
    main()

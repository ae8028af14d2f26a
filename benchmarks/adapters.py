"""Other people's PyMC models by pelton, by PyMC with nutpie, and by PyMC with NumPyro, each in a process of its own."""

# pyright: reportMissingImports=false

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from arviz_stats.base import array_stats  # pyright: ignore[reportPrivateImportUsage]

from pelton.benchmarks import record
from pelton.benchmarks.suite_tables import between, number
from pelton.benchmarks.verdicts import LARGEST_RHAT, LARGEST_Z
from pelton.engine.errors import ArgumentError

RESULTS = record.CHECKOUT / "benchmarks" / "results" / "adapters.jsonl"
PAGE = record.CHECKOUT / "docs" / "adapters.md"
EXAMPLES = record.CHECKOUT / "examples"
MODELS = ("rat_tumours", "radon", "media_mix", "contracts", "bambi_mixed")
SAMPLERS = ("pelton", "nutpie", "numpyro")
SETTINGS = {"chains": "chains", "tune": "draws of warm-up", "draws": "draws"}


def pymc_model(name: str) -> Any:
    """The PyMC model of an example."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    if spec is None or spec.loader is None:
        raise ArgumentError(f"there is no example {name!r} in {EXAMPLES}")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    built = example.build()
    match name:
        case "media_mix":
            built.build_model(*example.simulate(0))
            return built.model
        case "contracts":
            built.build_model(example.customers())
            return built.model
        case "bambi_mixed":
            built.build()
            return built.backend.model
    return built


def elements(posterior: Any) -> dict[str, np.ndarray]:
    """Draws of each variable's elements [element, chain, draw], without those that never change."""
    found = {}
    for name in posterior.data_vars:
        values = posterior[name].transpose(..., "chain", "draw").values.astype(float)
        values = values.reshape(-1, *values.shape[-2:])
        found[str(name)] = values[np.ptp(values, axis=(1, 2)) > 0]
    return {name: values for name, values in found.items() if len(values)}


def covered(intervals: Iterable[tuple[float, float]], start: float, end: float) -> float:
    """How much of the time from start to end the intervals cover; they may lie in one another.

    >>> covered([(1.0, 4.0), (2.0, 3.0), (6.0, 9.0)], 0.0, 8.0)
    5.0
    """
    total, reached = 0.0, start
    for first, last in sorted(intervals):
        total += max(0.0, min(last, end) - max(first, reached))
        reached = max(reached, last)
    return total


def _pelton(model: Any, seed: int, tune: int, draws: int, chains: int) -> tuple[Any, dict[str, float]]:
    import pelton.pymc

    began = time.perf_counter()
    tree = pelton.pymc.sample(
        draws,
        tune=tune,
        chains=chains,
        model=model,
        random_seed=seed,
        progressbar=False,
        compute_convergence_checks=False,
    )
    attrs = tree["posterior"].attrs
    running = attrs["seconds_warmup"] + attrs["seconds_sampling"]
    return tree, {
        "seconds_compiling": time.perf_counter() - began - running,
        "seconds_running": running,
        "seconds_sampling": attrs["seconds_sampling"],
    }


def _nutpie(model: Any, seed: int, tune: int, draws: int, chains: int) -> tuple[Any, dict[str, float]]:
    import pymc as pm

    settings = {"tune": tune, "chains": chains, "model": model, "random_seed": seed, "progressbar": False}
    settings |= {"nuts_sampler": "nutpie", "discard_tuned_samples": False, "compute_convergence_checks": False}
    began = time.perf_counter()
    tree = pm.sample(draws, **settings)
    whole = time.perf_counter() - began
    running = float(tree["posterior"].attrs["sampling_time"])
    # It tells no time of the draws alone: their share of the gradients stands for it.
    steps, before = (float(tree[group]["n_steps"].sum()) for group in ("sample_stats", "warmup_sample_stats"))
    return tree, {
        "seconds_compiling": whole - running,
        "seconds_running": running,
        "seconds_sampling": running * steps / (steps + before),
    }


def _numpyro(model: Any, seed: int, tune: int, draws: int, chains: int) -> tuple[Any, dict[str, float]]:
    """As `pm.sample(nuts_sampler="numpyro")` does it, the seconds in which JAX compiles told apart."""
    # Before JAX looks for its devices: it makes one of each core, on which chains run side by side.
    import jax
    import jax.monitoring
    import jax.numpy as jnp
    import xarray as xr
    from numpyro.infer import MCMC, NUTS
    from pymc.sampling.jax import get_jaxified_graph, get_jaxified_logp
    from pymc.util import get_default_varnames

    began = time.perf_counter()
    generator = np.random.default_rng(seed)
    point = [np.asarray(model.initial_point(seed)[value.name], float) for value in model.value_vars]
    moved = [one + generator.uniform(-1, 1, (chains, *one.shape)) for one in point]
    chain = MCMC(
        NUTS(potential_fn=get_jaxified_logp(model, negative_logp=False)),
        num_warmup=tune,
        num_samples=draws,
        num_chains=chains,
        chain_method="parallel",
        progress_bar=False,
    )
    compiling: list[tuple[float, float]] = []

    def listen(event: str, duration_secs: float, **kwargs: Any) -> None:
        del kwargs
        if event.startswith("/jax/core/compile/"):
            compiling.append((time.perf_counter() - duration_secs, time.perf_counter()))

    jax.monitoring.register_event_duration_secs_listener(listen)
    started = time.perf_counter()
    chain.warmup(jax.random.split(jax.random.key(seed), chains), init_params=moved)
    state: Any = jax.block_until_ready(chain.post_warmup_state)
    warmed = time.perf_counter()
    chain.run(state.rng_key, extra_fields=("num_steps", "diverging"))
    positions = jax.block_until_ready(chain.get_samples(group_by_chain=True))
    ended = time.perf_counter()
    running = ended - started - covered(compiling, started, ended)
    variables = get_default_varnames(model.unobserved_value_vars, include_transformed=False)
    graph = get_jaxified_graph(inputs=model.value_vars, outputs=variables)
    values = jax.jit(jax.vmap(jax.vmap(graph)))(*map(jnp.asarray, positions))
    whole = time.perf_counter() - began
    posterior = xr.Dataset(
        {
            variable.name: (("chain", "draw", *(f"{variable.name}_{axis}" for axis in range(value.ndim - 2))), value)
            for variable, value in zip(variables, map(np.asarray, values), strict=True)
        }
    )
    fields = chain.get_extra_fields(group_by_chain=True)
    stats = {"n_steps": fields["num_steps"], "diverging": fields["diverging"]}
    stats = xr.Dataset({name: (("chain", "draw"), np.asarray(value)) for name, value in stats.items()})
    tree = xr.DataTree.from_dict({"posterior": posterior, "sample_stats": stats})
    return tree, {
        "seconds_compiling": whole - running,
        "seconds_running": running,
        "seconds_sampling": ended - warmed - covered(compiling, warmed, ended),
    }


def measure(name: str, sampler: str, seed: int, tune: int, draws: int, chains: int, out: Path) -> dict[str, Any]:
    """One fit, what it cost, and its means with their standard errors in a file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = pymc_model(name)
        fit = {"pelton": _pelton, "nutpie": _nutpie, "numpyro": _numpyro}[sampler]
        tree, seconds = fit(model, seed, tune, draws, chains)
    found = elements(tree["posterior"])
    ess = {key: float(np.min(array_stats.ess(values, method="bulk"))) for key, values in found.items()}
    worst = min(ess, key=ess.__getitem__)
    summary = {f"{key} mean": values.mean(axis=(1, 2)) for key, values in found.items()}
    summary |= {f"{key} error": array_stats.mcse(values, method="mean") for key, values in found.items()}
    np.savez(out, **summary)  # pyright: ignore[reportArgumentType]
    return {
        "model": name,
        "sampler": sampler,
        "seed": seed,
        "least_ess": round(ess[worst], 1),
        "least_ess_of": worst,
        "rhat": round(max(float(np.max(array_stats.rhat(values))) for values in found.values()), 4),
        "divergences": int(tree["sample_stats"]["diverging"].sum()),
        "steps": int(tree["sample_stats"]["n_steps"].sum()),
        "ess_per_second_with_warmup": round(ess[worst] / seconds["seconds_running"], 2),
        "ess_per_second": round(ess[worst] / seconds["seconds_sampling"], 2),
        **{key: round(value, 3) for key, value in seconds.items()},
    }


def worst_difference(first: Path, second: Path) -> float:
    """The greatest difference of two runs' means, in combined standard errors."""
    one, other = np.load(first), np.load(second)
    scores = [
        np.abs(one[key] - other[key]) / np.hypot(one[f"{key[:-5]} error"], other[f"{key[:-5]} error"])
        for key in one.files
        if key.endswith(" mean") and key in other.files
    ]
    return round(max(float(np.max(score)) for score in scores), 2)


def _cell(runs: list[Mapping[str, Any]], ours: Mapping[int, Mapping[str, Any]]) -> str:
    """Median ESS per second of a sampler's runs and, beside ours, the median of our ESS per second over theirs."""
    if not runs:
        return "–"
    wrong = [run for run in runs if run["worst_difference"] >= LARGEST_Z]
    if wrong:
        return f"{max(run['worst_difference'] for run in wrong):.3g} standard errors from pelton"
    if any(run["rhat"] > LARGEST_RHAT for run in runs):
        return f"not converged (R-hat {max(run['rhat'] for run in runs):.3g})"
    rate = "ess_per_second_with_warmup"
    text = number(float(np.median([run[rate] for run in runs])))
    ratios = [ours[run["seed"]][rate] / run[rate] for run in runs if run["seed"] in ours]
    if runs[0]["sampler"] == "pelton" or not ratios:
        return text
    return f"{text} (pelton {np.median(ratios):.2g} times)"


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """The latest run of each model, sampler and seed, as a table in Markdown."""
    rows = list(rows)
    latest = {(row["model"], row["sampler"], row["seed"]): row for row in rows}
    if not rows:
        return "No run is stored."
    lines = [f"| model | {' | '.join(SAMPLERS)} |", "|---" * (1 + len(SAMPLERS)) + "|"]
    for model in MODELS:
        found = {name: [row for key, row in sorted(latest.items()) if key[:2] == (model, name)] for name in SAMPLERS}
        ours = {row["seed"]: row for row in found["pelton"]}
        if any(found.values()):
            lines.append(f"| {model} | {' | '.join(_cell(found[name], ours) for name in SAMPLERS)} |")
    last = rows[-1]
    versions = ", ".join(f"{name} {version}" for name, version in last["versions"].items())
    settings = ", ".join(f"{last[name]} {words}" for name, words in SETTINGS.items())
    return "\n".join([*lines, "", f"{settings}; commit {last['commit']}; {versions}."])


def write_page() -> None:
    """Puts the table of the stored runs into docs/adapters.md."""
    PAGE.write_text(between(PAGE.read_text(), table(record.stored(RESULTS)), PAGE))


def main() -> None:
    """`python -m pelton.benchmarks.adapters`: each model by each sampler in turn, a line of the results file each.

    The smallest bulk ESS over all that stands in the posterior, deterministics included, by the seconds of warm-up and
    draws, and of draws alone (of nutpie's time by their share of the gradients). What is not running counts as
    compiling: PyTensor's rewriting, the compiler, deterministics; nothing compiled is at hand from an earlier run.
    Each line says by how many standard errors its means differ from the first sampler's of the same model and seed.
    """
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=list(SAMPLERS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tune", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--chains", type=int, default=4)
    parser.add_argument("--results", type=Path, default=RESULTS, help="another file; then no page is written")
    parser.add_argument("--page-only", action="store_true", help="write docs/adapters.md from what is stored")
    parser.add_argument("--one", nargs=4, metavar=("MODEL", "SAMPLER", "SEED", "OUT"), help="one fit, in this process")
    asked = parser.parse_args()
    settings = {"tune": asked.tune, "draws": asked.draws, "chains": asked.chains}
    if asked.one:
        model, sampler, seed, out = asked.one
        print(json.dumps(measure(model, sampler, int(seed), out=Path(out), **settings)))
        return
    if asked.page_only:
        write_page()
        return
    packages = ("pymc", "pytensor", "nutpie", "pymc-marketing", "bambi")
    versions = record.versions() | record.installed(packages)
    about = {"machine": record.machine(), "versions": versions, "commit": record.commit(), **settings}
    flags = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    with tempfile.TemporaryDirectory() as folder:
        for model in asked.models:
            for seed in range(asked.repeats):
                files = {sampler: Path(folder) / f"{sampler}.npz" for sampler in asked.samplers}
                for sampler in asked.samplers:
                    one = ["--one", model, sampler, str(seed), str(files[sampler])]
                    command = [sys.executable, "-m", "pelton.benchmarks.adapters", *one, *flags]
                    fresh = os.environ | {"PELTON_CACHE_DIR": tempfile.mkdtemp(dir=folder)}
                    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=fresh)
                    row = json.loads(done.stdout.splitlines()[-1])
                    row["worst_difference"] = worst_difference(files[asked.samplers[0]], files[sampler])
                    print(json.dumps(row), flush=True)
                    record.append(asked.results, about | row)
    if asked.results == RESULTS:
        write_page()


if __name__ == "__main__":
    main()

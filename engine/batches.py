"""Draws of a batch of posteriors: those without a start are left out, and those that ask for it get more care."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pelton.engine.chains import Chains, no_start
from pelton.engine.compilation import Compiler, Request
from pelton.engine.errors import PeltonError, StartError
from pelton.engine.phase import Phase
from pelton.engine.plan import sampler_of
from pelton.engine.posterior import Posterior
from pelton.engine.programs import Programs, build_independent, seed_words
from pelton.engine.progress import Report
from pelton.engine.samplers import Sampler
from pelton.engine.samplers.base import Independent
from pelton.engine.settings import Settings

# Below this mean acceptance a cheap form of the sampler has not fitted its posterior.
LEAST_ACCEPTANCE = 0.75


@dataclass(frozen=True)
class Batch:
    """Some of a group's fits: their numbers, where they begin in the group's posterior, and lanes for them."""

    posterior: Posterior
    fits: np.ndarray
    first: int
    size: int

    def taken(self, places: np.ndarray) -> tuple[Posterior, np.ndarray]:
        """The posterior and the numbers of the fits at some places, in 4, 32, 256, ... lanes or all there are.

        Lanes that are left over repeat the first: that costs less than to compile for every number of fits.
        """
        size = 4
        while size < len(places):
            size *= 8
        size = min(self.size, size)
        lanes = np.concatenate([places, np.repeat(places[:1], size - len(places))])
        data = jax.tree.map(lambda leaf: np.asarray(leaf)[self.first + lanes], self.posterior.data)
        return replace(self.posterior, data=data, batch=size), self.fits[lanes]


@dataclass
class Drawn:
    """A batch's draws, and what they cost.

    Attributes:
        fits: numbers of the fits.
        data: of them [fit, ...].
        positions: [chain, draw, fit, d].
        stats: [chain, draw, fit] each, with one draw for all where they are alike.
        seconds: spent compiling, warming up and sampling.
        evaluations: gradients of all draws.
        starts, warmup, metric: of each fit.
        errors: of those that could not be drawn, whose draws mean nothing.
        device: where they were drawn.
    """

    fits: np.ndarray
    data: Any
    positions: np.ndarray
    stats: dict[str, np.ndarray]
    seconds: dict[str, float]
    evaluations: int
    starts: int
    warmup: int
    metric: str
    device: Any
    errors: dict[int, PeltonError] = field(default_factory=dict)

    def of(self, column: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Positions [chain, draw, d] and statistics [chain, draw] of one fit."""
        positions = self.positions[:, :, column]
        stats = {name: np.broadcast_to(v[:, :, column], positions.shape[:2]) for name, v in self.stats.items()}
        return positions, stats


def stacked(posteriors: Sequence[Posterior]) -> Posterior:
    """The batch of posteriors that share their functions and shapes."""
    data = jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *[p.data for p in posteriors])
    return replace(posteriors[0], data=data, batch=len(posteriors), batch_dim="fit", explain=None)


def draw(batch: Batch, settings: Settings, device: Any) -> list[Drawn]:
    """Draws of every fit of the batch, on one device, then of those again that the cheap form did not serve."""
    with settings.in_force([device]):
        full = sampler_of(settings, batch.posterior)
        places = np.arange(len(batch.fits))
        drawn = _drawn(batch, places, full.quick(), settings, device)
        if full.quick() == full:
            return [drawn]
        bad = drawn.stats["diverging"].any(axis=(0, 1))
        bad |= drawn.stats["acceptance_rate"].mean(axis=(0, 1)) < LEAST_ACCEPTANCE
        bad &= ~np.isin(batch.fits, list(drawn.errors))
        return [drawn, _drawn(batch, places[bad], full, settings, device)] if bad.any() else [drawn]


def _drawn(batch: Batch, places: np.ndarray, sampler: Sampler, settings: Settings, device: Any) -> Drawn:
    """Draws of the fits at some places."""
    found = _independent if isinstance(sampler, Independent) else _chains
    drawn = found(batch, places, sampler, settings, device)
    width = len(places)
    return replace(
        drawn,
        fits=batch.fits[places],
        data=jax.tree.map(lambda leaf: leaf[:width], drawn.data),
        positions=drawn.positions[:, :, :width],
        stats={name: values[:, :, :width] for name, values in drawn.stats.items()},
    )


def _independent(batch: Batch, places: np.ndarray, sampler: Sampler, settings: Settings, device: Any) -> Drawn:
    """All draws in one call of one program."""
    posterior, numbers = batch.taken(places)
    programs = Programs(
        posterior=(posterior.logdensity, posterior.start, posterior.hierarchy),
        sampler=sampler,
        batched=True,
        vectorized=False,
        capacity=settings.draws,
        starts=settings.chains,
    )
    compiler = Compiler()
    data = jax.device_put(jax.tree.map(jnp.asarray, posterior.data), device)
    args = (numbers.astype(np.uint32), seed_words(settings.seed), data)
    program = compiler(Request(build_independent, (programs, settings.chains, settings.draws), args, device))
    began = time.perf_counter()
    good, info, (positions, lp, acceptance) = jax.tree.map(np.asarray, program(*args))
    seconds = time.perf_counter() - began
    # [fit, draw, chain] to [chain, draw, fit].
    alike = {name: values.T[:, None] for name, values in info._asdict().items()}
    stats = alike | {name: values.T for name, values in (("lp", lp), ("energy", -lp), ("acceptance_rate", acceptance))}
    missing = numbers[: len(places)][~good[: len(places)]]
    errors: dict[int, PeltonError] = {int(number): no_start(posterior) for number in missing}
    return Drawn(
        fits=numbers,
        data=posterior.data,
        positions=positions.transpose(2, 1, 0, 3),
        stats=stats,
        seconds={"compiling": compiler.seconds, "warmup": 0.0, "sampling": seconds},
        evaluations=int(stats["n_steps"][:, :, : len(places)].sum()) * settings.draws,
        starts=settings.chains,
        warmup=0,
        metric=sampler.metric,
        device=device,
        errors=errors,
    )


def _chains(batch: Batch, places: np.ndarray, sampler: Sampler, settings: Settings, device: Any) -> Drawn:
    """Draws of chains that run side by side; fits without a start give their lanes up to the first that has one."""
    lanes = places.copy()
    errors: dict[int, PeltonError] = {}
    while True:
        posterior, numbers = batch.taken(lanes)
        engine = Chains(
            posterior,
            sampler,
            settings.chains,
            settings.seed,
            settings.chain_method == "vectorized",
            [device],
            segments=numbers,
        )
        try:
            _, kept = engine.run(settings.draws, Report())
            break
        except StartError as error:
            failed = np.isin(lanes, lanes[[member for member in error.members if member < len(lanes)]])
            errors |= {int(batch.fits[place]): no_start(posterior) for place in lanes[failed]}
            if failed.all():
                kept = _nothing(settings, posterior)
                break
            lanes[failed] = lanes[~failed][0]
    return Drawn(
        fits=numbers,
        data=posterior.data,
        positions=kept.positions,
        stats=kept.stats,
        seconds={"compiling": engine.compiler.seconds, **engine.seconds},
        evaluations=engine.evaluations * len(places) // len(numbers),
        starts=engine.starts,
        warmup=sampler.warmup_steps,
        metric=sampler.metric,
        device=device,
        errors=errors,
    )


def _nothing(settings: Settings, posterior: Posterior) -> Phase:
    """Draws that mean nothing, where no fit has a start."""
    empty = np.full((settings.chains, settings.draws, *posterior.batch_shape), np.nan)
    stats = dict.fromkeys(("lp", "acceptance_rate"), empty) | {"diverging": np.isnan(empty)}
    return Phase(np.full((*empty.shape, posterior.dimension), np.nan), stats)

"""The front of the fast approximations: arguments checked, fitted, drawn, weighed against the posterior."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from pelton.engine.approximations import DEFAULT, Approximation, approximation_class
from pelton.engine.approximations.base import Distribution
from pelton.engine.arguments import seed_of, whole
from pelton.engine.chains import no_start
from pelton.engine.compilation import Compiler, Request
from pelton.engine.diagnostics import not_converged
from pelton.engine.errors import ArgumentError, ModelError
from pelton.engine.groups import add_groups
from pelton.engine.importance import MAX_KHAT, Importance, importance, resampled
from pelton.engine.keys import key_of
from pelton.engine.naming import constrained
from pelton.engine.placement import choose_devices, cores
from pelton.engine.posterior import Posterior, adopted, data_size, posterior_of
from pelton.engine.precision import choose_precision, current, using
from pelton.engine.programs import CONSTRAIN_BATCH, finite_start, seed_words
from pelton.engine.progress import progress as progress_bar
from pelton.engine.results import Draws, assemble, judge
from pelton.engine.samplers.base import Bound

# Draws that are weighed: k-hat of fewer says little, and resampling wants several for each that it returns.
LEAST_WEIGHED = 4000
WEIGHED_A_RESAMPLED = 4
# What four chains of a sampler must reach (Vehtari et al. 2021): a tail that was hardly seen gives a low k-hat too.
LEAST_EFFECTIVE = 400
MOST_STARTS = 1000
# Draws made by one call of the compiled program, so that every number of them shares it.
BLOCK = 1024
# A matrix of more dimensions has more numbers than Adam learns in its steps.
FULL_UP_TO = 200
# Keys of the fit and of the draws lie apart from those of the starts, which are numbered from 0.
_REFINE, _DRAW = 2**31, 2**31 + 1


def approximate(
    model: Any,
    method: str = DEFAULT,
    *,
    draws: int = 1000,
    seed: int = 0,
    precision: str | None = None,
    device: str | None = None,
    groups: Sequence[str] = (),
    resample: bool | None = None,
    starts: int | None = None,
    steps: int | None = None,
    covariance: str | None = None,
    progress: bool | None = None,
) -> xr.DataTree:
    """Draws from a fast approximation q of a posterior p, with a measure of when not to trust it.

    All methods work on the flat unconstrained position, where p includes the log Jacobian of the transforms.

    - "pathfinder": from each start, the normal of greatest evidence lower bound E_q[log p - log q] among those that
      L-BFGS passes on its way up, their covariances being its estimates of the inverse Hessian; q is the even mixture
      of all starts' normals, its draws resampled by importance (Zhang et al. 2022, multi-path Pathfinder).
    - "laplace": q = Normal(m, H^-1), m the mode and H = -d2 log p / dx2 there; up to 2000 dimensions.
    - "advi": the normal of greatest evidence lower bound, by Adam on gradients of its draws (Kucukelbir et al. 2017;
      sticking the landing, Roeder et al. 2017).
    - "map": the mode m alone, one chain of one draw, without any uncertainty.

    What an approximation is worth is judged by Pareto-smoothed importance sampling: k-hat is the shape of the tail of
    the ratios p / q over draws of q (Vehtari et al. 2024; Yao et al. 2018). Up to 0.7 weighted or resampled draws are
    as good as the posterior's; above it nothing that is computed from q should be trusted. A k-hat below 0.7 does not
    say that plain draws are unbiased, and it knows nothing of a mode that no draw of q reached: only `pelton.sample`
    can claim convergence.

    Args:
        model: a pelton model, a PyMC model, or a Posterior (`pelton.from_numpyro` makes one).
        method: "pathfinder", "laplace", "advi" or "map".
        draws: draws a chain. There is one chain; without resampling, Pathfinder has one for each start.
        seed: of all randomness; the same seed, device, versions and precision give the same draws.
        precision: "float32", "float64", or None for float64 on a CPU and float32 on an accelerator.
        device: as for `pelton.sample`.
        groups: further groups of the tree, as for `pelton.sample`.
        resample: whether the draws are resampled in proportion to smoothed importance weights; None does so for
            Pathfinder alone. The others give plain draws of q.
        starts: independent starts, of which the best is kept (Pathfinder: all are); 4, for Pathfinder 8.
        steps: limit on the optimiser's iterations; 1000 of L-BFGS from each start, 3000 of Adam.
        covariance: "full" or "diagonal" for "advi"; None is full up to 200 dimensions.
        progress: whether to show a progress bar; None shows it on a terminal.

    Returns:
        A DataTree as `pelton.sample` gives it. sample_stats holds lp (log p up to a constant) and, where there is a q,
        lp_approx (log q) and log_weight (of plain draws, normalised; the posterior's mean is the weighted one).
        Attributes: approximation, khat, effective_draws (1 / sum w^2 of the weighed_draws), elbo, resampled, starts,
        gradient_evaluations (a column of a Hessian counts as one), density_evaluations, seconds_compiling,
        seconds_fitting, seconds_drawing; gradient_norm and mode_lp where there is a mode; `converged` is 0 and `status`
        begins with "NOT CONVERGED" where k-hat exceeds 0.7 or the draws are worth less than 400, and `status` is never
        the word "converged".

    Raises:
        ArgumentError: a setting is out of range, the posterior is a batch, or has nothing unknown.
        ModelError: the log density is not finite at any of a hundred starts; "laplace", "map": no climb ended at a
            maximum with a positive definite negative Hessian.

    Warns:
        ConvergenceWarning: k-hat exceeds 0.7, or the draws are worth less than 400 of the posterior.

    >>> import pelton
    >>> model = pelton.PartialPooling([9, 22, 31], [138, 72, 157], prior=pelton.GammaShapes(2.0, 0.1))
    >>> tree = pelton.approximate(model, "laplace", draws=500)
    >>> tree["posterior"]["mu"].shape, tree.attrs["approximation"]
    ((1, 500), 'laplace')
    >>> tree.attrs["khat"] < 0.7, tree.attrs["status"].split(":")[0]
    (True, 'approximation by laplace')
    """
    kind = approximation_class(method)
    settings = _check(kind, draws, resample, starts, steps, covariance)
    seed = seed_of(seed)
    model = adopted(model)
    posterior = posterior_of(model, groups, "approximate")
    _check_posterior(posterior, kind)
    place = choose_devices(device, settings.starts * data_size(posterior))[0]
    run_precision = choose_precision(precision, place.platform)
    if covariance is None:
        covariance = "full" if posterior.dimension <= FULL_UP_TO else "diagonal"
    chosen = kind(steps=settings.steps, covariance=covariance if kind.offers_diagonal else "full")
    with using(run_precision), jax.default_device(place):
        fitted = _Fit(posterior, chosen, settings, seed, place, progress)
        found = fitted.drawn(draws)
        tree = judge(
            assemble(
                posterior, Draws(constrained(posterior, found.positions, fitted.compiler), found.stats, None, None)
            ),
            posterior,
            attrs={
                "approximation": method,
                "chains": found.positions.shape[0],
                "draws": found.positions.shape[1],
                "seed": seed,
                "starts": settings.starts,
                "precision": run_precision,
                "device": str(place.device_kind),
                **({"covariance": chosen.covariance} if kind.offers_diagonal else {}),
                **fitted.attrs,
                "seconds_compiling": fitted.compiler.seconds,
                "seconds_fitting": fitted.seconds_fitting,
                "seconds_drawing": fitted.seconds_drawing,
                "gradient_evaluations": fitted.gradients,
                "density_evaluations": fitted.densities,
            },
            by=lambda tree: found.trust,
        )
        if isinstance(model, Posterior):
            return add_groups(tree, posterior, found.positions, groups, seed)
    return model.finish(tree, seed=seed, groups=groups)


def positions(posterior: Posterior, method: str, count: int, starts: int, seed: int, device: Any) -> np.ndarray:
    """Positions [count, d] drawn by an approximation at its defaults, in the precision in force.

    Args:
        posterior: to approximate.
        method: a registered approximation that is a distribution.
        count: how many; where the method resamples, by importance.
        starts: climbs.
        seed: of the randomness.
        device: where.
    """
    kind = approximation_class(method)
    settings = _Settings(kind.resamples, starts, kind.default_steps)
    fitted = _Fit(posterior, kind(steps=settings.steps), settings, seed, device, show=False)
    return fitted.drawn(count).positions.reshape(-1, posterior.dimension)[:count]


class _Settings(NamedTuple):
    resample: bool
    starts: int
    steps: int


def _check(
    kind: type[Approximation],
    draws: int,
    resample: bool | None,
    starts: int | None,
    steps: int | None,
    covariance: str | None,
) -> _Settings:
    """Refuses settings out of range before anything is compiled."""
    name = kind.name
    whole("draws", draws, 1)
    if resample not in (None, True, False):
        raise ArgumentError(f"resample is True, False or None (for Pathfinder alone), not {resample!r}")
    if resample and not issubclass(kind, Distribution):
        raise ArgumentError(f"{name!r} is one point and has no draws to resample; leave resample out")
    if covariance is not None:
        if not kind.offers_diagonal:
            raise ArgumentError(f"covariance is for 'advi' and not for {name!r}; leave it out")
        if covariance not in ("full", "diagonal"):
            raise ArgumentError(f"covariance is 'full', 'diagonal' or None (by dimension), not {covariance!r}")
    return _Settings(
        resample=kind.resamples if resample is None else bool(resample),
        starts=kind.default_starts if starts is None else whole("starts", starts, 1, MOST_STARTS),
        steps=kind.default_steps if steps is None else whole("steps", steps, 1),
    )


def _check_posterior(posterior: Posterior, kind: type[Approximation]) -> None:
    if posterior.batch is not None:
        raise ArgumentError(
            f"approximate takes one posterior at a time, and this one is a batch of {posterior.batch} "
            f"({posterior.batch_dim}); fit each by itself, or all by pelton.sample"
        )
    if posterior.dimension == 0:
        raise ArgumentError("this posterior has nothing unknown to approximate; pelton.sample draws it exactly")
    if kind.max_dimension is not None and posterior.dimension > kind.max_dimension:
        raise ArgumentError(
            f"{kind.name!r} takes at most {kind.max_dimension} dimensions and this posterior has "
            f"{posterior.dimension}; use 'pathfinder', or pelton.sample"
        )


@dataclass(frozen=True)
class _Trust:
    """What the importance ratios say of an approximation; None where there is one point alone."""

    method: str
    resampled: bool
    weighed: Importance | None

    @property
    def problems(self) -> tuple[str, ...]:
        if self.weighed is None:
            return ()
        if self.weighed.khat <= MAX_KHAT:
            if self.weighed.effective >= LEAST_EFFECTIVE:
                return ()
            return (
                f"{len(self.weighed.log_weights)} draws of the approximation by {self.method} are worth "
                f"{self.weighed.effective:.0f} of the posterior (at least {LEAST_EFFECTIVE}), with a Pareto k-hat of "
                f"{self.weighed.khat:.2f}: it is far from the posterior; sample it instead",
            )
        return (
            f"Pareto k-hat is {self.weighed.khat:.2f} (at most {MAX_KHAT}): the approximation by {self.method} is far "
            "from the posterior; sample it instead",
        )

    def attrs(self) -> dict[str, Any]:
        if self.weighed is None:
            status = f"approximation by {self.method}: the mode alone, without uncertainty"
            return {"converged": 1, "status": status, "khat": np.nan}
        how = "resampled by importance" if self.resampled else "plain draws of the approximation, not corrected"
        status = f"approximation by {self.method}: Pareto k-hat {self.weighed.khat:.2f}, {how}"
        return {
            "converged": int(not self.problems),
            "status": not_converged(self.problems) if self.problems else status,
            "khat": self.weighed.khat,
            "effective_draws": self.weighed.effective,
            "weighed_draws": len(self.weighed.log_weights),
        }


class _Drawn(NamedTuple):
    """Positions [chain, draw, d], statistics [chain, draw], and what they are worth."""

    positions: np.ndarray
    stats: dict[str, np.ndarray]
    trust: _Trust


class _Fit:
    """An approximation fitted to a posterior, and what that cost."""

    def __init__(
        self,
        posterior: Posterior,
        method: Approximation,
        settings: _Settings,
        seed: int,
        device: Any,
        show: bool | None,
    ):
        self.method = method
        self.device = device
        self.settings = settings
        self.compiler = Compiler()
        self.posterior = posterior
        self.functions = (posterior.logdensity, posterior.start)
        self.data = jax.tree.map(jnp.asarray, posterior.data)
        self.seed = seed
        self.words = seed_words(seed)
        self.attrs: dict[str, float] = {}
        self.seconds_fitting = self.seconds_drawing = 0.0
        with progress_bar(method.name, settings.starts + 1, show) as report:
            found = self._explored(report)
            self.gradients, self.densities = int(found.gradients.sum()), int(found.densities.sum())
            fit = self._chosen(found)
            args = (fit, self.words, self.data)
            program = self.compiler(Request(build_refine, (method, self.functions), args, self.device))
            began = time.perf_counter()
            self.fit, more = jax.block_until_ready(program(*args))
            self.seconds_fitting += time.perf_counter() - began
            self.gradients += int(more)
            report(1, "fitted")
        self.attrs |= method.check(jax.tree.map(np.asarray, self.fit), settings.starts)

    def _explored(self, report: Callable[[int, str], None]) -> Any:
        """What every start led to, stacked [start, ...]."""
        vectorized = self.device.platform != "cpu"
        every = np.arange(self.settings.starts, dtype=np.uint32)
        groups = [every] if vectorized else list(every)
        static = (self.method, self.functions, vectorized)
        program = self.compiler(Request(build_explore, static, (groups[0], self.words, self.data), self.device))
        precision = current()

        def one(group: Any) -> Any:
            with using(precision), jax.default_device(self.device):
                result = jax.tree.map(np.asarray, program(group, self.words, self.data))
            report(self.settings.starts // len(groups), "exploring")
            return result

        began = time.perf_counter()
        if len(groups) == 1:
            results = [one(groups[0])]
        else:
            with ThreadPoolExecutor(min(len(groups), cores())) as pool:
                results = list(pool.map(one, groups))
        self.seconds_fitting += time.perf_counter() - began
        joined = results[0] if vectorized else jax.tree.map(lambda *leaves: np.stack(leaves), *results)
        found, good = joined
        if not np.all(good):
            raise no_start(self.posterior)
        return found

    def _chosen(self, found: Any) -> Any:
        """The best start's fit; of a method that keeps all, those of all starts that led somewhere."""
        scores = np.where(np.isnan(found.score), -np.inf, found.score)
        if not np.any(np.isfinite(scores)):
            raise ModelError(
                f"none of {len(scores)} climbs found a normal under which the log density is finite; sample it instead"
            )
        keep = np.isfinite(scores) if self.method.keeps_all else int(np.argmax(scores))
        return jax.tree.map(lambda leaf: jnp.asarray(leaf[keep]), found.fit)

    def drawn(self, draws: int) -> _Drawn:
        """The run's draws."""
        if not isinstance(self.method, Distribution):
            point = np.asarray(self.fit.position)[None, None]
            return _Drawn(point, {"lp": np.asarray(self.fit.value)[None, None]}, _Trust(self.method.name, False, None))
        resample = self.settings.resample
        chains = 1
        if self.method.keeps_all and not resample:
            chains = len(jax.tree.leaves(self.fit)[0])
        size = max(LEAST_WEIGHED, draws * (WEIGHED_A_RESAMPLED if resample else chains))
        began, compiled = time.perf_counter(), self.compiler.seconds
        positions, log_p, log_q = self._blocks(self.method, size, chains)
        weighed = importance(log_p, log_q)
        self.densities += len(log_p)
        gap = np.asarray(log_p, np.float64) - log_q
        self.attrs["elbo"] = float(np.mean(gap)) if np.all(np.isfinite(gap)) else -np.inf
        if resample:
            rows = resampled(weighed.log_weights, draws, np.random.default_rng([self.seed, _DRAW]))[None]
        else:
            # Row i is of chain i modulo the number of chains.
            rows = np.arange(draws * chains).reshape(draws, chains).T
        stats = {"lp": log_p[rows], "lp_approx": log_q[rows]}
        if not resample:
            chosen = weighed.log_weights[rows]
            stats["log_weight"] = chosen - np.logaddexp.reduce(chosen, axis=None)
        self.seconds_drawing = time.perf_counter() - began - (self.compiler.seconds - compiled)
        self.attrs["resampled"] = int(resample)
        return _Drawn(positions[rows], stats, _Trust(self.method.name, resample, weighed))

    def _blocks(self, method: Distribution, size: int, chains: int) -> list[np.ndarray]:
        """So many positions with their log densities under posterior and approximation, chains in turn."""
        first = (self.fit, self.words, np.uint32(0), self.data)
        program = self.compiler(Request(build_draw, (method, self.functions), first, self.device))
        # A block that is no multiple of the chains ends in the middle of a turn.
        usable = BLOCK // chains * chains
        blocks = [
            jax.tree.map(np.asarray, program(self.fit, self.words, np.uint32(block), self.data))
            for block in range(-(-size // usable))
        ]
        return [np.concatenate([leaf[:usable] for leaf in leaves])[:size] for leaves in zip(*blocks, strict=True)]


def build_explore(method: Approximation, functions: tuple[Callable, Callable], vectorized: bool) -> Callable:
    """(start, seed, data) -> what that start led to, and whether its log density is finite at all."""
    logdensity, start = functions

    def one(number: Any, seed: Any, data: Any) -> tuple[Any, Any]:
        bound = Bound(logdensity, data, start)
        key = jax.random.fold_in(key_of(seed), number)
        key_start, key_fit = jax.random.split(key)
        begun = finite_start(bound, start, key_start, data)
        return method.explore(bound, begun.position, key_fit), begun.good

    return jax.vmap(one, (0, None, None)) if vectorized else one


def build_refine(method: Approximation, functions: tuple[Callable, Callable]) -> Callable:
    """(fit, seed, data) -> the fit to draw from, and gradient evaluations."""
    logdensity, start = functions

    def program(fit: Any, seed: Any, data: Any) -> tuple[Any, Any]:
        key = jax.random.fold_in(key_of(seed), np.uint32(_REFINE))
        return method.refine(Bound(logdensity, data, start), fit, key)

    return program


def build_draw(method: Distribution, functions: tuple[Callable, Callable]) -> Callable:
    """(fit, seed, block, data) -> positions [BLOCK, d] and their log densities under posterior and approximation."""
    logdensity, start = functions

    def program(fit: Any, seed: Any, block: Any, data: Any) -> tuple[Any, Any, Any]:
        key = jax.random.fold_in(jax.random.fold_in(key_of(seed), np.uint32(_DRAW)), block)
        positions, log_q = method.draw(fit, key, BLOCK)
        log_p = jax.lax.map(Bound(logdensity, data, start), positions, batch_size=CONSTRAIN_BATCH)
        return positions, log_p, log_q

    return program

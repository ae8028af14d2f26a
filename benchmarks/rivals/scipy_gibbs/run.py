"""The stores model by NumPy and SciPy alone: Metropolis within Gibbs, as published and corrected."""

import math
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import betaln

PACKAGES = ["numpy", "scipy"]
# Of the reference system: alpha, beta ~ Gamma(shape, rate), and the random walk's standard deviation.
SHAPE, RATE = 0.5, 0.5
STEP = 0.2
BURN_IN = 500
# The pilot that tunes a step: a Metropolis move is cheap beside a draw of all rates, so each draw serves
# many.
PILOT_SWEEPS, PILOT_MOVES = 30, 30
TARGET_ACCEPTANCE = 0.3


@dataclass(frozen=True)
class GibbsDraws:
    """Draws of the population's shapes, and what they cost.

    Attributes:
        alpha, beta: [chain, draw], after the burn-in.
        rates: posterior mean of each unit's rate [unit], over all draws.
        step: standard deviation of the random walk on (log alpha, log beta).
        acceptance: share of the Metropolis proposals accepted.
        seconds: wall time of it all: pilot, burn-in and draws of every chain, one after another on one core.
    """

    alpha: np.ndarray
    beta: np.ndarray
    rates: np.ndarray
    step: float
    acceptance: float
    seconds: float


@dataclass
class _Chain:
    """One chain: the counts as floats, its shapes at present, and its moves.

    Attributes:
        successes, failures: [unit].
        jacobian: whether the walk on the logarithms is corrected for.
        rng: of all its draws.
        alpha, beta: the population's shapes.
        theta: rates [unit] of the last sweep.
        accepted: of the last sweep's moves.
    """

    successes: np.ndarray
    failures: np.ndarray
    jacobian: bool
    rng: np.random.Generator
    alpha: float
    beta: float
    theta: np.ndarray = field(default_factory=lambda: np.empty(0))
    accepted: int = 0

    def sweep(self, steps: np.ndarray, log_uniforms: np.ndarray) -> None:
        """theta | rest ~ Beta(alpha + k, beta + n - k), then moves of (log alpha, log beta) given theta."""
        theta = self.rng.beta(self.alpha + self.successes, self.beta + self.failures)
        log_theta, log_rest = float(np.log(theta).sum()), float(np.log1p(-theta).sum())
        if not math.isfinite(log_theta + log_rest):
            # A rate rounded to 0 or 1, which shapes far below 1 can give.
            theta = np.clip(theta, np.finfo(float).tiny, 1 - np.finfo(float).epsneg)
            log_theta, log_rest = float(np.log(theta).sum()), float(np.log1p(-theta).sum())
        self.theta, self.accepted = theta, 0
        stores, alpha, beta = len(theta), self.alpha, self.beta
        current = betaln(alpha, beta)
        for (step_alpha, step_beta), log_uniform in zip(steps.tolist(), log_uniforms.tolist(), strict=True):
            new_alpha, new_beta = alpha * math.exp(step_alpha), beta * math.exp(step_beta)
            proposed = betaln(new_alpha, new_beta)
            gain = (
                (new_alpha - alpha) * (log_theta - RATE)
                + (new_beta - beta) * (log_rest - RATE)
                - stores * (proposed - current)
                + (SHAPE - 1) * (step_alpha + step_beta)
            )
            if self.jacobian:
                # The walk is on the logarithms, where the density has the factor alpha beta.
                gain += step_alpha + step_beta
            if log_uniform < gain:
                alpha, beta, current = new_alpha, new_beta, proposed
                self.accepted += 1
        self.alpha, self.beta = float(alpha), float(beta)

    def randomness(self, sweeps: int, moves: int) -> tuple[np.ndarray, np.ndarray]:
        """Standard normals [sweep, move, 2] and logarithms of uniforms on (0, 1] [sweep, move]."""
        return self.rng.standard_normal((sweeps, moves, 2)), np.log1p(-self.rng.random((sweeps, moves)))

    def tune(self) -> float:
        """A step accepted about three times in ten, by stochastic approximation while the chain runs."""
        log_step, kept = math.log(2 / math.sqrt(len(self.successes))), []
        for number, (normals, log_uniforms) in enumerate(zip(*self.randomness(PILOT_SWEEPS, PILOT_MOVES), strict=True)):
            self.sweep(math.exp(log_step) * normals, log_uniforms)
            log_step += 2 * (self.accepted / PILOT_MOVES - TARGET_ACCEPTANCE) / math.sqrt(number + 1)
            kept.append(log_step)
        return math.exp(float(np.mean(kept[PILOT_SWEEPS // 2 :])))


def _moments(successes: np.ndarray, trials: np.ndarray) -> tuple[float, float]:
    """Shapes with the mean and variance of the raw rates less their binomial noise: where chains start."""
    seen = trials > 0
    n = trials[seen]
    mean = (successes.sum() + 0.5) / (trials.sum() + 1)
    between = float((successes[seen] / n).var() - (mean * (1 - mean) / n).mean()) if len(n) else 0.0
    concentration = float(np.clip(mean * (1 - mean) / max(between, 1e-6) - 1, 1.0, 1e4))
    return mean * concentration, (1 - mean) * concentration


def sample(
    successes: np.ndarray,
    trials: np.ndarray,
    *,
    jacobian: bool,
    chains: int = 4,
    sweeps: int = 20_000,
    burn_in: int = BURN_IN,
    step: float | None = STEP,
    moves: int = 1,
    seed: int = 0,
) -> GibbsDraws:
    """Draws from the stores model, a sweep at a time.

        k_i ~ Binomial(n_i, theta_i),  theta_i ~ Beta(alpha, beta),  alpha, beta ~ Gamma(1/2, 1/2)

    A sweep draws every rate from theta_i | rest ~ Beta(alpha + k_i, beta + n_i - k_i) and then moves
    (log alpha, log beta) by a normal step, accepted with probability min(1, ratio). At fixed rates the
    density of the shapes depends on sum log theta and sum log(1 - theta) alone, so that a move costs the same
    at any number of stores.

    Args:
        successes, trials: counts [unit], 0 <= successes <= trials.
        jacobian: True for the corrected form. False for the form as published, which takes the ratio of
            densities of (alpha, beta) although it walks on their logarithms. It leaves out
            log(alpha' beta') - log(alpha beta), and so samples p(alpha, beta | k) / (alpha beta).
        chains: run one after another from moment estimates, with seeds of their own.
        sweeps: draws a chain.
        burn_in: sweeps a chain before its draws.
        step: standard deviation of the walk; None tunes it to three acceptances in ten, in a pilot that all
            chains share. Past some hundred stores the usual 0.2 is far too wide, since the posterior narrows
            as 1 / sqrt(stores).
        moves: Metropolis moves a sweep. One is the published scheme; with many stores more are nearly free.
        seed: of NumPy's generators.

    Raises:
        ValueError: no unit, counts out of range, or a setting below its least value.

    Source: the stores reference system; Metropolis within Gibbs is in Tierney 1994 (Annals of Statistics 22,
        1701).

    >>> k, n = np.array([9, 22, 31, 2]), np.array([138, 72, 157, 60])
    >>> draws = sample(k, n, jacobian=True, chains=2, sweeps=100)
    >>> draws.alpha.shape, draws.rates.shape
    ((2, 100), (4,))
    """
    successes, trials = np.asarray(successes), np.asarray(trials)
    if len(successes) == 0 or successes.shape != trials.shape:
        raise ValueError(f"give the counts of the same units, not {len(successes)} and {len(trials)}")
    if np.any(successes < 0) or np.any(successes > trials):
        raise ValueError("successes lie between 0 and trials, in every unit")
    for name, value, least in (
        ("chains", chains, 1),
        ("sweeps", sweeps, 1),
        ("burn_in", burn_in, 0),
        ("moves", moves, 1),
        ("seed", seed, 0),
    ):
        if value < least:
            raise ValueError(f"{name} is at least {least}, not {value}")
    if step is not None and not step > 0:
        raise ValueError(f"step is positive, or None to tune it, not {step!r}")
    began = time.perf_counter()
    counts = (successes.astype(float), (trials - successes).astype(float), jacobian)
    start = _moments(successes, trials)
    shapes, rates, accepted = np.empty((2, chains, sweeps)), np.zeros(len(successes)), 0
    with np.errstate(divide="ignore"):
        if step is None:
            pilot = _Chain(*counts, np.random.default_rng([seed, chains]), *start)
            step = pilot.tune()
            start = pilot.alpha, pilot.beta
        for number in range(chains):
            chain = _Chain(*counts, np.random.default_rng([seed, number]), *start)
            normals, log_uniforms = chain.randomness(burn_in + sweeps, moves)
            steps = step * normals
            for sweep in range(burn_in + sweeps):
                chain.sweep(steps[sweep], log_uniforms[sweep])
                if sweep >= burn_in:
                    shapes[:, number, sweep - burn_in] = chain.alpha, chain.beta
                    rates += chain.theta
                    accepted += chain.accepted
    draws = chains * sweeps
    seconds = time.perf_counter() - began
    return GibbsDraws(
        alpha=shapes[0],
        beta=shapes[1],
        rates=rates / draws,
        step=step,
        acceptance=accepted / (draws * moves),
        seconds=seconds,
    )


def fit(job: dict[str, Any], data: dict[str, np.ndarray]) -> dict[str, Any]:
    """The job's draws of logit mu and log kappa."""
    settings = job["settings"]
    drawn = sample(
        data["successes"],
        data["trials"],
        jacobian=settings.get("jacobian", True),
        chains=job["chains"],
        sweeps=job["draws"],
        burn_in=job["warmup"],
        step=settings.get("step", STEP),
        moves=settings.get("moves", 1),
        seed=job["seed"],
    )
    return {
        "draws": {"logit_mu": np.log(drawn.alpha / drawn.beta), "log_kappa": np.log(drawn.alpha + drawn.beta)},
        "compiling": 0.0,
        "sampling": drawn.seconds,
        "notes": [f"step {drawn.step:.3g}, {100 * drawn.acceptance:.0f}% accepted, one core"],
    }

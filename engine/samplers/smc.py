"""Tempered sequential Monte Carlo: populations carried from a broad normal to a posterior of several modes."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from blackjax.mcmc import hmc
from blackjax.mcmc.hmc import HMCState
from blackjax.smc import resampling
from blackjax.smc.solver import dichotomy
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from pelton.engine.samplers.base import Bound, BoundLogDensity, Chainwise, Info
from pelton.engine.warmup import SHRINK

PARTICLES = 1024
# Starts that the reference is fitted to, and how much broader than they it is.
STARTS, BROADER = 256, 1.5
# The power rises until this share of the particles would be left.
SHARE = 0.7
# HMC moves after each resampling, after the last, and from one draw to the next, where each is of
# smaller steps than the last.
MOVES, LAST_MOVES, DRAW_MOVES, SMALLER = 8, 16, 2, 4.0
# A trajectory's mean length in the metric's time, a quarter of a normal's period, and how the step size begins and
# follows its acceptance, a move at a time.
LENGTH, FIRST_STEP, RATE = 1.6, 0.3, 0.3
# Stands for a log density of minus infinity where it is multiplied by a power of 0.
LOWEST = -1e30
MOST_POWERS = 10_000


class Reference(NamedTuple):
    """The normal distribution at power 0."""

    mean: Float[Array, " d"]
    sd: Float[Array, " d"]

    def logpdf(self, position: Float[Array, " d"]) -> Float[Array, ""]:
        """Normalised, so that the evidence is the log density's own."""
        z = (position - self.mean) / self.sd
        return -0.5 * jnp.sum(z**2) - jnp.sum(jnp.log(self.sd)) - 0.5 * z.shape[0] * jnp.log(2 * jnp.pi)


class Population(NamedTuple):
    """Particles on the way to the posterior.

    Attributes:
        particles: positions, tempered log densities and their gradients [particle, ...].
        power: of the posterior, from 0 to 1; the reference has the rest.
        log_step: log of the leapfrog step.
        inverse_mass: the metric, [d] or [d, d].
        ancestor: of each particle, the first particle that it descends from.
        log_evidence: of the log density.
        gradients: evaluations so far, of each particle.
        rounds: powers so far.
    """

    particles: Any
    power: Float[Array, ""]
    log_step: Float[Array, ""]
    inverse_mass: Array
    ancestor: Int[Array, " particle"]
    log_evidence: Float[Array, ""]
    gradients: Int[Array, ""]
    rounds: Int[Array, ""]


class State(NamedTuple):
    """A chain: its population at full power, given particle by particle.

    Attributes:
        particles: positions, log densities and scores [particle, ...].
        order: in which they are given.
        at: how many have been.
        step_size, inverse_mass: of their moves.
        log_evidence: log of the integral of exp(log density).
        effective: effective number of first particles that the population descends from.
        rounds, gradients: powers on the way, and gradient evaluations.
    """

    particles: HMCState
    order: Int[Array, " particle"]
    at: Int[Array, ""]
    step_size: Float[Array, ""]
    inverse_mass: Array
    log_evidence: Float[Array, ""]
    effective: Float[Array, ""]
    rounds: Int[Array, ""]
    gradients: Int[Array, ""]


@dataclass(frozen=True)
class Smc(Chainwise):
    """Adaptive tempering, each chain an independent population of 1,024 particles.

    The reference q is a normal of 1.5 times the spread of 256 starts. Populations pass through q^(1 - b) p^b, b rising
    from 0 to 1 so that 70% of the particles would be left by effective number, are resampled (systematically) and
    moved by HMC in the population's metric, with steps adapted to it. At b = 1 a draw is a particle, in a random order
    and after two further HMC moves of its own, the second with a quarter of the step (a draw counts as diverging where
    both moves do), so that draws of any number are exact as the population's size grows, and
    within a mode as their own number grows.

    HMC does not cross between modes that are far apart, so that more draws say nothing more of their weights: a
    chain's share w of a mode has the variance w (1 - w) / n of its population alone, n being about the effective number
    of first particles that the last ones descend from, N^2 / sum_k n_k^2. The tree's attributes give it for each chain
    (effective_particles), beside the log evidence. More chains sharpen the weights; R-hat between them shows a mode
    that some populations missed. A mode much narrower than the others in many dimensions has few ancestors.

    Source: Del Moral, Doucet & Jasra 2006; Chan & Lai 2013 for the variance by ancestors.
    """

    name: ClassVar[str] = "smc"
    needs_warmup: ClassVar[bool] = False
    # At 0.8 populations of many dimensions lag behind their power, and the evidence comes out too small.
    default_target_accept: ClassVar[float] = 0.9
    # A thousand particles tell a covariance of so many dimensions.
    dense_up_to: ClassVar[int] = 100

    def init(self, logdensity: BoundLogDensity, position: Array, key: PRNGKeyArray) -> State:
        assert isinstance(logdensity, Bound)
        key_starts, key_first, key_rounds, key_order = jax.random.split(key, 4)
        starts = jax.vmap(logdensity.start, (0, None))(jax.random.split(key_starts, STARTS), logdensity.data)
        spread = jnp.std(starts, axis=0)
        reference = Reference(jnp.mean(starts, axis=0), jnp.where(spread > 0, BROADER * spread, 1.0))
        dtype = position.dtype
        noise = jax.random.normal(key_first, (PARTICLES, position.shape[0]), dtype)
        none, zero = jnp.zeros((), jnp.int32), jnp.zeros((), dtype)
        variance = reference.sd**2
        population = Population(
            # At power 0 densities and gradients are not asked for.
            particles=HMCState(reference.mean + reference.sd * noise, jnp.zeros(PARTICLES, dtype), noise),  # pyright: ignore[reportArgumentType]
            power=zero,
            log_step=jnp.log(jnp.asarray(FIRST_STEP, dtype)),
            inverse_mass=jnp.diag(variance) if self.metric == "dense" else variance,
            ancestor=jnp.arange(PARTICLES, dtype=jnp.int32),
            log_evidence=zero,
            gradients=none,
            rounds=none,
        )
        population = jax.lax.while_loop(
            lambda population: population.power < 1,
            lambda population: self._raise(logdensity, reference, population, key_rounds),
            population,
        )
        descendants = jnp.zeros(PARTICLES, dtype).at[population.ancestor].add(1.0)
        return State(
            particles=population.particles,
            order=jax.random.permutation(key_order, PARTICLES),
            at=none,
            step_size=jnp.exp(population.log_step),
            inverse_mass=population.inverse_mass,
            log_evidence=population.log_evidence,
            effective=PARTICLES**2 / jnp.sum(descendants**2),
            rounds=population.rounds,
            gradients=population.gradients * PARTICLES,
        )

    def _raise(
        self, logdensity: BoundLogDensity, reference: Reference, population: Population, key: PRNGKeyArray
    ) -> Population:
        """The population at the next power."""
        key_choose, key_move = jax.random.split(jax.random.fold_in(key, population.rounds))
        positions = population.particles.position
        gain = jax.vmap(lambda x: logdensity(x) - reference.logpdf(x))(positions)
        gain = jnp.where(jnp.isnan(gain), LOWEST, jnp.clip(gain, LOWEST, -LOWEST))

        def left(rise: Array) -> Array:
            """Log of the effective share of the particles after a rise of the power, above its target."""
            log_weight = rise * gain
            return 2 * logsumexp(log_weight) - logsumexp(2 * log_weight) - jnp.log(SHARE * PARTICLES)

        rest = 1 - population.power
        # The smallest rise that is one keeps the loop going whatever the solver finds.
        found = dichotomy(left, jnp.zeros_like(rest), rest)
        rise = jnp.clip(jnp.where(jnp.isnan(found), 0.0, found), jnp.finfo(rest.dtype).eps, rest)
        rise = jnp.where(population.rounds + 1 < MOST_POWERS, rise, rest)
        weights = jax.nn.softmax(rise * gain)
        chosen = resampling.systematic(key_choose, weights, PARTICLES)
        moved = population._replace(
            particles=population.particles._replace(position=positions[chosen]),
            power=jnp.where(rise >= rest, 1.0, population.power + rise),
            inverse_mass=self._metric(positions, weights),
            ancestor=population.ancestor[chosen],
            log_evidence=population.log_evidence + logsumexp(rise * gain) - jnp.log(PARTICLES),
            gradients=population.gradients + 1,
            rounds=population.rounds + 1,
        )
        return self._move(logdensity, reference, moved, key_move)

    def _metric(self, particles: Float[Array, "particle d"], weights: Float[Array, " particle"]) -> Array:
        """The population's variances, or its covariance shrunk towards them as if by 5 + d / 8 further particles."""
        centred = particles - weights @ particles
        variances = weights @ centred**2
        variances = jnp.where(variances > 0, variances, 1.0)
        if self.metric != "dense":
            return variances
        prior = (SHRINK[0] + SHRINK[1] * particles.shape[1]) / PARTICLES
        return ((weights[:, None] * centred).T @ centred + prior * jnp.diag(variances)) / (1 + prior)

    def _move(
        self, logdensity: BoundLogDensity, reference: Reference, population: Population, key: PRNGKeyArray
    ) -> Population:
        """HMC moves of all particles at the population's power, the step following their acceptance."""
        power = population.power

        def tempered(position: Array) -> Array:
            return power * logdensity(position) + (1 - power) * reference.logpdf(position)

        # At full power the reference is gone, and with it its rounding.
        def density(position: Array) -> Array:
            return jnp.where(power < 1, tempered(position), logdensity(position))

        def once(index: Any, carry: tuple) -> tuple:
            particles, log_step, gradients = carry
            key_length, key_each = jax.random.split(jax.random.fold_in(key, index))
            step_size = jnp.exp(log_step)
            steps = self._steps(key_length, step_size)
            kernel: Any = hmc.build_kernel()
            particles, info = jax.vmap(
                lambda key, particle: kernel(key, particle, density, step_size, population.inverse_mass, steps)
            )(jax.random.split(key_each, PARTICLES), particles)
            log_step = log_step + RATE * (jnp.mean(info.acceptance_rate) - self.target_accept)
            return particles, log_step, gradients + steps

        particles = jax.vmap(lambda x: hmc.init(x, density))(population.particles.position)
        carry = (particles, population.log_step, population.gradients + 1)
        particles, log_step, gradients = jax.lax.fori_loop(0, jnp.where(power < 1, MOVES, LAST_MOVES), once, carry)
        return population._replace(particles=particles, log_step=log_step, gradients=gradients)

    def _steps(self, key: PRNGKeyArray, step_size: Array) -> Array:
        """Leapfrogs of a trajectory whose length is uniform between half and three halves of its mean."""
        length = LENGTH * jax.random.uniform(key, (), step_size.dtype, 0.5, 1.5)
        return jnp.clip(jnp.ceil(length / step_size), 1, 2**self.max_tree_depth - 1).astype(jnp.int32)

    def step(self, logdensity: BoundLogDensity, state: Any, key: PRNGKeyArray) -> tuple[State, Info]:
        at = state.order[state.at % PARTICLES]
        kernel: Any = hmc.build_kernel()

        def once(index: Any, carry: tuple) -> tuple:
            particle, accepted, gradients, diverging = carry
            key_length, key_move = jax.random.split(jax.random.fold_in(key, index))
            # As many steps each time, but ever smaller ones: for places where the population's step is too large.
            steps, step_size = self._steps(key_length, state.step_size), state.step_size / SMALLER**index
            particle, found = kernel(key_move, particle, logdensity, step_size, state.inverse_mass, steps)
            accepted = accepted + found.acceptance_rate / DRAW_MOVES
            return particle, accepted, gradients + steps, diverging & found.is_divergent

        particle = jax.tree.map(lambda leaf: leaf[at], state.particles)
        none = jnp.zeros((), jnp.int32)
        carry = (particle, jnp.zeros_like(state.step_size), none, jnp.asarray(True))
        particle, accepted, gradients, diverging = jax.lax.fori_loop(0, DRAW_MOVES, once, carry)
        particles = jax.tree.map(lambda leaf, one: leaf.at[at].set(one), state.particles, particle)
        info = Info(
            lp=particle.logdensity,
            energy=-particle.logdensity,
            acceptance_rate=accepted,
            n_steps=gradients,
            tree_depth=none,
            step_size=state.step_size,
            diverging=diverging,
            reached_max_tree_depth=jnp.asarray(False),
        )
        return state._replace(particles=particles, at=state.at + 1), info

    def position(self, state: Any) -> Array:
        # Of the particle given last.
        return state.particles.position[state.order[(state.at - 1) % PARTICLES]]

    def summary(self, state: Any) -> dict[str, Array]:
        return {
            "log_evidence": state.log_evidence,
            "effective_particles": state.effective,
            "powers": state.rounds,
            "population_gradients": state.gradients,
        }

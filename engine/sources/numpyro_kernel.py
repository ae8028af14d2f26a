"""NutsKernel: the sampler `nuts` as a kernel of NumPyro's MCMC."""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray
from numpyro.infer.initialization import init_to_uniform
from numpyro.infer.mcmc import MCMCKernel
from numpyro.infer.util import initialize_model
from numpyro.util import identity, is_prng_key

from pelton.engine.arguments import whole
from pelton.engine.errors import ArgumentError
from pelton.engine.moments import Moments, first_inverse_mass, inverse_mass
from pelton.engine.samplers.nuts import Nuts, State
from pelton.engine.warmup import EARLY_DEPTH, LONG_WINDOW, DualAverage, Learnt, Metric, windows


class Adapted(NamedTuple):
    """What a chain samples with.

    Attributes:
        step_size: of the leapfrog.
        inverse_mass_matrix: its diagonal [d], over the flat unconstrained position.
    """

    step_size: Float[Array, "..."]
    inverse_mass_matrix: Float[Array, "... d"]


class KernelState(NamedTuple):
    """A chain between two draws, under the names of NumPyro's `HMCState` where the meaning is the same.

    Vectorised chains have a leading axis, `i` and `moments` apart, which they share.

    Attributes:
        i: draws so far, those of the warm-up included.
        z: unconstrained values by site, or in the form that the potential takes.
        potential_energy: at z.
        energy: Hamiltonian at the draw.
        num_steps: leapfrogs of the last draw.
        accept_prob: mean acceptance probability of its trajectory.
        mean_accept_prob: of all draws since the warm-up ended, or began.
        diverging: whether its energy error passed the limit.
        tree_depth: doublings of its trajectory.
        adapt_state: step size and metric.
        rng_key: of the next draw.
        chain: the sampler's own state.
        moments: of draws and scores since the last window but one began, and since the last one began.
    """

    i: Int[Array, ""]
    z: Any
    potential_energy: Float[Array, "..."]
    energy: Float[Array, "..."]
    num_steps: Int[Array, "..."]
    accept_prob: Float[Array, "..."]
    mean_accept_prob: Float[Array, "..."]
    diverging: Bool[Array, "..."]
    tree_depth: Int[Array, "..."]
    adapt_state: Adapted
    rng_key: Array
    chain: State
    moments: tuple[Moments, Moments]


class NutsKernel(MCMCKernel):
    """pelton's NUTS for `numpyro.infer.MCMC`.

    The trajectory is that of the sampler "nuts": multinomial NUTS whose steps are halved where the energy asks for it,
    with a jittered step size. What MCMC's protocol of one draw a call changes, against `pelton.sample`:

    - The metric is diagonal, from the variances of draws and scores, sd(x) / sd(g), at the ends of the same windows,
      each learnt from the last two windows. `pelton.sample` learns it from all chains, with the directions in which the
      diagonal is wrong. Vectorised chains are pooled here too, chains one after the other or on devices of their own
      are not.
    - Vectorised chains wait at each draw for the longest trajectory; `pelton.sample` runs them without waiting.
    - In the warm-up trajectories have at most seven doublings.

    `run` takes extra_fields=("potential_energy", "energy", "num_steps", "accept_prob", "mean_accept_prob",
    "tree_depth", "adapt_state.step_size", "adapt_state.inverse_mass_matrix"); "diverging" is always there.

    Args:
        model: a NumPyro model; discrete latents are summed over as NumPyro does, with funsor.
        potential_fn: in place of a model, z -> minus the log density; `MCMC.run` then needs init_params.
        target_accept_prob: mean acceptance probability that the step size is adapted to.
        max_tree_depth: limit on a trajectory's doublings.
        init_strategy: where chains start, as for NumPyro's NUTS.

    Raises:
        ArgumentError: neither or both of model and potential_fn are given, or a setting is out of range.

    >>> import jax, numpyro, numpyro.distributions as dist
    >>> from numpyro.infer import MCMC
    >>> def model(y):
    ...     mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    ...     numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)
    >>> mcmc = MCMC(NutsKernel(model), num_warmup=200, num_samples=300, progress_bar=False)
    >>> mcmc.run(jax.random.key(0), 0.4)
    >>> mcmc.get_samples()["mean"].shape
    (300,)
    """

    def __init__(
        self,
        model: Callable | None = None,
        potential_fn: Callable | None = None,
        *,
        target_accept_prob: float = 0.8,
        max_tree_depth: int = 10,
        init_strategy: Callable = init_to_uniform,
    ):
        if (model is None) == (potential_fn is None):
            raise ArgumentError("NutsKernel takes a model or a potential_fn, one of the two")
        if not 0 < target_accept_prob < 1:
            raise ArgumentError(f"target_accept_prob lies between 0 and 1, not {target_accept_prob!r}; 0.8 is usual")
        self._model = model
        self._potential_fn = potential_fn
        self._init_strategy = init_strategy
        self._sampler = Nuts(
            target_accept=float(target_accept_prob), max_tree_depth=whole("max_tree_depth", max_tree_depth, 1)
        )
        self._forget()

    def _forget(self) -> None:
        # MCMC asks for an attribute of this name to see whether `init` was called.
        self._sample_fn: Callable | None = None
        self._potential_fn_gen: Callable | None = None
        self._postprocess_fn: Callable | None = None
        self._num_warmup = 0

    @property
    def sample_field(self) -> str:
        """The field of a state that holds the draw."""
        return "z"

    @property
    def default_fields(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What MCMC collects without being asked."""
        return ("z", "diverging")

    @property
    def model(self) -> Callable | None:
        """The model, if it was made of one."""
        return self._model

    def init(
        self,
        rng_key: Array,
        num_warmup: int,
        init_params: Any = None,
        model_args: tuple = (),
        model_kwargs: dict | None = None,
    ) -> KernelState:
        """The state of a chain at its start, or of several chains where there are several keys.

        Raises:
            ArgumentError: a kernel of a potential_fn was given no init_params.
        """
        kwargs = model_kwargs or {}
        many = not is_prng_key(rng_key)
        keys = jax.vmap(jax.random.split)(rng_key) if many else jax.random.split(rng_key)
        rng_key, key_init = (keys[:, 0], keys[:, 1]) if many else (keys[0], keys[1])
        if self._model is not None:
            found = initialize_model(
                key_init,
                self._model,
                dynamic_args=True,
                init_strategy=self._init_strategy,
                model_args=model_args,
                model_kwargs=kwargs,
            )
            self._potential_fn_gen, self._postprocess_fn = found.potential_fn, found.postprocess_fn
            init_params = found.param_info.z if init_params is None else init_params
        elif init_params is None:
            raise ArgumentError("a NutsKernel of a potential_fn needs init_params: where to start, for MCMC.run")
        self._num_warmup = num_warmup
        self._sample_fn = self._advance
        z = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(float)), init_params)
        every = z if many else jax.tree.map(lambda leaf: leaf[None], z)
        positions = jax.vmap(lambda one: ravel_pytree(one)[0])(every)
        density = self._density(jax.tree.map(lambda leaf: leaf[0], every), model_args, kwargs)
        sampler = self._planned()
        every_key = rng_key if many else rng_key[None]
        chain = jax.vmap(lambda position, key: sampler.init(density, position, key))(positions, every_key)
        metric = first_inverse_mass(chain.score)
        if num_warmup == 0:
            metric = jnp.ones_like(metric)
        none = Moments.none_like(jnp.zeros((2, positions.shape[1]), positions.dtype))
        zero, number = jnp.zeros_like(chain.lp), jnp.zeros(chain.lp.shape, jnp.int32)
        state = KernelState(
            i=jnp.zeros((), jnp.int32),
            z=every,
            potential_energy=-chain.lp,
            energy=-chain.lp,
            num_steps=number,
            accept_prob=zero,
            mean_accept_prob=zero,
            diverging=jnp.zeros(chain.lp.shape, bool),
            tree_depth=number,
            adapt_state=Adapted(chain.step_size, jnp.broadcast_to(metric, positions.shape)),
            rng_key=every_key,
            chain=chain,
            moments=(none, none),
        )
        state = jax.tree.map(lambda leaf: jax.lax.convert_element_type(leaf, leaf.dtype), state)
        return state if many else _alone(state)

    def sample(self, state: KernelState, model_args: tuple, model_kwargs: dict | None) -> KernelState:
        """The state after one draw, and in the warm-up after what was learnt from it."""
        assert self._sample_fn is not None, "`init` must be called before `sample`."
        if not is_prng_key(state.rng_key):
            return self._sample_fn(state, model_args, model_kwargs or {})
        return _alone(self._sample_fn(_together(state), model_args, model_kwargs or {}))

    def postprocess_fn(self, model_args: tuple, model_kwargs: dict | None) -> Callable:
        """z -> values of the sites, deterministic ones included."""
        if self._postprocess_fn is None:
            return identity
        return self._postprocess_fn(*model_args, **(model_kwargs or {}))

    def get_diagnostics_str(self, state: KernelState) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What the progress bar shows."""
        return (
            f"{state.num_steps} steps of size {state.adapt_state.step_size:.2e}. acc. prob={state.mean_accept_prob:.2f}"
        )

    def refresh(self, state: Any, model_args: tuple, model_kwargs: dict | None) -> Any:
        """The state with the density and its gradient computed again, for other arguments."""
        density = self._density(state.z, model_args, model_kwargs or {})
        lp, score = jax.value_and_grad(density)(state.chain.position)
        return state._replace(potential_energy=-lp, chain=state.chain._replace(lp=lp, score=score))

    def wrap_model(self, wrapper: Callable) -> "NutsKernel":
        """A kernel like this one for the wrapped model."""
        if self._model is None:
            raise ArgumentError("a NutsKernel of a potential_fn has no model to wrap")
        kernel = copy.copy(self)
        kernel._model = wrapper(self._model)
        kernel._forget()
        return kernel

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_sample_fn": None, "_potential_fn_gen": None, "_postprocess_fn": None}

    def _planned(self) -> Nuts:
        """The sampler, for the warm-up asked for."""
        settings = self._sampler
        return Nuts(self._num_warmup, settings.target_accept, settings.max_tree_depth, "diagonal")

    def _density(self, z: Any, args: tuple, kwargs: dict) -> Callable[[Array], Array]:
        """The log density of one chain's flat position; z gives the form of the potential's argument."""
        potential = self._potential_fn if self._potential_fn_gen is None else self._potential_fn_gen(*args, **kwargs)
        unravel = ravel_pytree(z)[1]
        return lambda position: -cast("Callable", potential)(unravel(position))

    def _advance(self, state: KernelState, args: tuple, kwargs: dict) -> KernelState:
        """One draw of all chains [chain, ...]."""
        sampler, first = self._planned(), jax.tree.map(lambda leaf: leaf[0], state.z)
        density, unravel = self._density(first, args, kwargs), ravel_pytree(first)[1]
        warming = state.i < self._num_warmup
        deepest = sampler.max_tree_depth
        depth = jnp.where(warming, min(EARLY_DEPTH, deepest), deepest).astype(jnp.int32)

        def draw(chain: State, inverse: Array, key: PRNGKeyArray) -> tuple[State, Any, PRNGKeyArray]:
            learnt = Learnt(_metric(inverse), depth)
            key, key_draw = jax.random.split(key)
            work, _ = jax.lax.while_loop(
                lambda carry: ~sampler.finished(carry[0]),
                lambda carry: sampler.advance(density, learnt, *carry),
                (sampler.begin(chain, learnt, key_draw), sampler.scratch(chain)),
            )
            after, info = sampler.complete(chain, learnt, work)
            adapted = sampler.adapt(after, info)
            return jax.tree.map(lambda one, other: jnp.where(warming, one, other), adapted, after), info, key

        given = (state.chain, state.adapt_state.inverse_mass_matrix, state.rng_key)
        if state.rng_key.shape[0] > 1:
            chain, info, key = jax.vmap(draw)(*given)
        else:
            # Vectorised, even alone, a chain would pay for both branches of every decision.
            alone = draw(*jax.tree.map(lambda leaf: leaf[0], given))
            chain, info, key = jax.tree.map(lambda leaf: leaf[None], alone)
        i = state.i + 1
        chain, inverse, moments = jax.lax.cond(
            warming,
            lambda: self._learn(i, chain, state.adapt_state.inverse_mass_matrix, state.moments),
            lambda: (chain, state.adapt_state.inverse_mass_matrix, state.moments),
        )
        count = jnp.where(i > self._num_warmup, i - self._num_warmup, i)
        mean = jnp.where(count == 1, 0.0, state.mean_accept_prob)
        return KernelState(
            i=i,
            z=jax.vmap(unravel)(chain.position),
            potential_energy=-chain.lp,
            energy=info.energy,
            num_steps=info.n_steps,
            accept_prob=info.acceptance_rate,
            mean_accept_prob=mean + (info.acceptance_rate - mean) / count,
            diverging=info.diverging,
            tree_depth=info.tree_depth,
            adapt_state=Adapted(chain.step_size, inverse),
            rng_key=key,
            chain=chain,
            moments=moments,
        )

    def _learn(
        self, i: Array, chain: State, inverse: Array, moments: tuple[Moments, Moments]
    ) -> tuple[State, Array, tuple[Moments, Moments]]:
        """What all chains know after the i-th draw of the warm-up."""
        ends = windows(self._num_warmup)
        rows = jnp.stack([chain.position, chain.score], axis=1)
        last, current = (one.updated(rows) for one in moments)
        # The metric is left alone at the last end; from there on the step size is found.
        at_end = jnp.any(i == jnp.array([end for end in ends if end < self._num_warmup] or ends, jnp.int32))
        inverse = jnp.where(at_end, inverse_mass(last, inverse[0]), inverse)
        none = Moments.none_like(rows[0])
        moments = jax.tree.map(lambda new, old: jnp.where(at_end, new, old), (current, none), (last, current))
        # After a long window, and at the last, a step size for all chains.
        long = [end for begin, end in zip((0, *ends), ends, strict=False) if end - begin >= LONG_WINDOW]
        settle = jnp.any(i == jnp.array([*long, self._num_warmup], jnp.int32))
        log_step = jnp.broadcast_to(jnp.mean(chain.averaging.log_average), chain.step_size.shape)
        settled = chain._replace(step_size=jnp.exp(log_step), averaging=DualAverage.at(log_step, boldness=0.0))
        chain = jax.tree.map(lambda new, old: jnp.where(settle, new, old).astype(old.dtype), settled, chain)
        return chain, inverse, moments


def _metric(inverse: Array) -> Metric:
    """A diagonal metric."""
    return Metric(jnp.sqrt(inverse), jnp.zeros((inverse.shape[0], 0), inverse.dtype), jnp.zeros(0, inverse.dtype))


# What vectorised chains share has no axis of chains.
_SHARED = ("i", "moments")


def _alone(state: KernelState) -> KernelState:
    """The only chain of a state of all chains."""
    fields = {name: value for name, value in state._asdict().items() if name not in _SHARED}
    return state._replace(**jax.tree.map(lambda leaf: leaf[0], fields))


def _together(state: KernelState) -> KernelState:
    """A state of all chains, of one."""
    fields = {name: value for name, value in state._asdict().items() if name not in _SHARED}
    return state._replace(**jax.tree.map(lambda leaf: leaf[None], fields))

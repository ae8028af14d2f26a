"""The sites of a NumPyro model: what is latent, observed or derived; what cannot be sampled is refused."""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import PRNGKeyArray
from numpyro import handlers
from numpyro.distributions.transforms import biject_to
from numpyro.infer.initialization import init_to_uniform
from numpyro.primitives import Messenger

from pelton.engine.errors import ModelError, PeltonError

type Kind = Literal["latent", "discrete", "observed", "factor", "deterministic"]


@dataclass(frozen=True)
class Site:
    """One statement of a model.

    Attributes:
        kind: "latent" is continuous and unobserved; "discrete" is summed over; "factor" is a term without a value.
        shape: of its value; None where the value is no array.
        plates: name and size of the plate on each axis, counted from the right before the event's axes.
        event: number of the event's axes.
        unconstrained: shape of a latent's unconstrained value.
        unplated: the first of its batch axes that no plate names, counted from the right; None where all are named.
    """

    kind: Kind
    shape: tuple[int, ...] | None
    plates: Mapping[int, tuple[str, int]] = field(default_factory=dict)
    event: int = 0
    unconstrained: tuple[int, ...] = ()
    unplated: int | None = None

    def dims(self, name: str) -> tuple[str, ...]:
        """A plate names its axis; an axis without a plate is named after its variable."""
        shape = self.shape or ()
        rank = len(shape)
        names = [f"{name}_dim_{axis}" for axis in range(rank)]
        # Where a derived value has more axes than plates, nothing says which are which.
        if self.kind == "deterministic" and rank > max((-dim for dim in self.plates), default=0):
            return tuple(names)
        for dim, (plate, size) in self.plates.items():
            axis = rank - self.event + dim
            if 0 <= axis < rank and shape[axis] == size:
                names[axis] = plate
        return tuple(names)


@dataclass(frozen=True)
class Sites:
    """All sites by name, in the model's order, and the depth of its plates."""

    by_name: dict[str, Site]
    plate_depth: int

    def names(self, kind: Kind) -> list[str]:
        return [name for name, site in self.by_name.items() if site.kind == kind]


class _Reached(Messenger):
    """Remembers the site that a model was at when it failed."""

    def __init__(self, fn: Callable):
        super().__init__(fn)
        self.name: str | None = None

    def process_message(self, msg: dict) -> None:
        if msg["type"] in ("sample", "deterministic", "plate") and msg.get("name") is not None:
            self.name = msg["name"]


def describe(model: Callable, call: Callable[[Any], tuple[tuple, dict]], data: Sequence[Any]) -> Sites:
    """The model's sites, traced abstractly: nothing is computed or compiled.

    Args:
        model: the model.
        call: data -> the model's arguments.
        data: arrays among them.

    Raises:
        ModelError: the model fails, or a site cannot be sampled; the message names the site.
    """
    found: dict[str, Site] = {}
    depth = 0

    def trace(key: PRNGKeyArray, data: Sequence[Any]) -> int:
        nonlocal depth
        args, kwargs = call(data)
        # An improper prior cannot be drawn from; a value for it is made up, as NumPyro's own initialisation does.
        seeded = handlers.substitute(handlers.seed(model, key), substitute_fn=init_to_uniform)
        reached = _Reached(seeded)
        try:
            sites = handlers.trace(reached).get_trace(*args, **kwargs)
        except PeltonError:
            raise
        except Exception as error:
            where = "before its first variable" if reached.name is None else f"at or after {reached.name!r}"
            raise ModelError(f"the model fails {where}: {type(error).__name__}: {error}") from error
        for name, site in sites.items():
            for frame in site.get("cond_indep_stack", ()):
                depth = max(depth, -frame.dim)
            if (one := _read(name, site)) is not None:
                found[name] = replace(one, unplated=_unplated(site))
        return 0

    jax.eval_shape(trace, jax.eval_shape(lambda: jax.random.key(0)), data)
    summed = [name for name, site in found.items() if site.kind == "discrete"]
    for name, site in found.items():
        if summed and site.unplated is not None:
            raise ModelError(
                f"variable {name!r} has a batch axis, {site.unplated} from the right, without a plate; to sum over "
                f"{summed[0]!r} each needs one: write numpyro.plate around it, or make it an event by .to_event(1)"
            )
    return Sites(found, depth)


def _unplated(site: Mapping[str, Any]) -> int | None:
    if site["type"] != "sample":
        return None
    shape, plates = site["fn"].batch_shape, {frame.dim for frame in site["cond_indep_stack"]}
    return next((at for at in range(1, len(shape) + 1) if shape[-at] > 1 and -at not in plates), None)


def _read(name: str, site: Mapping[str, Any]) -> Site | None:
    plates = {frame.dim: (frame.name, int(frame.size)) for frame in site.get("cond_indep_stack", ())}
    match site["type"]:
        case "plate":
            size, part = site["args"]
            if part is not None and part != size:
                raise ModelError(
                    f"plate {name!r} takes {part} of its {size} members at random, so that the log density changes "
                    "from one evaluation to the next; leave subsample_size out and give all data"
                )
            return None
        case "param":
            raise ModelError(
                f"{name!r} is a numpyro.param, a number to be optimised and not a random variable; give it a prior by "
                "numpyro.sample, or fix it by numpyro.handlers.substitute"
            )
        case "deterministic":
            return Site("deterministic", tuple(jnp.shape(site["value"])), plates)
        case "sample":
            return _read_sample(name, site, plates)
        case _:
            return None


def _read_sample(name: str, site: Mapping[str, Any], plates: Mapping[int, tuple[str, int]]) -> Site:
    function: Any = site["fn"]
    value: Any = site["value"]
    event = len(function.event_shape)
    if site["is_observed"]:
        _check_log_prob(name, function, value)
        if isinstance(function, dist.Unit):
            return Site("factor", None)
        is_pytree = isinstance(value, tuple | list | dict)
        return Site("observed", None if is_pytree else tuple(jnp.shape(value)), plates, event)
    shape = tuple(jnp.shape(value))
    if isinstance(function, dist.Delta):
        raise ModelError(f"variable {name!r} is a Delta, which is known exactly; write numpyro.deterministic")
    if function.support.is_discrete:
        _check_enumerable(name, site)
        return Site("discrete", shape, plates, event)
    try:
        unconstrained = tuple(biject_to(function.support).inverse_shape(shape))
    except NotImplementedError:
        raise ModelError(
            f"latent variable {name!r} ({type(function).__name__}) has the support {function.support!r}, which NumPyro "
            "maps to no unconstrained space; write it by others, for instance with numpyro.handlers.reparam"
        ) from None
    _check_log_prob(name, function, value)
    return Site("latent", shape, plates, event, unconstrained)


def _check_log_prob(name: str, function: Any, value: Any) -> None:
    try:
        function.log_prob(value)
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"variable {name!r}: {type(function).__name__} of batch shape {tuple(function.batch_shape)} and event "
            f"shape {tuple(function.event_shape)} has no log probability of a value of shape "
            f"{tuple(jnp.shape(value))}: {error}"
        ) from error


def _check_enumerable(name: str, site: Mapping[str, Any]) -> None:
    """Raises ModelError where a discrete latent cannot be summed over."""
    function = base = site["fn"]
    while isinstance(base, dist.ExpandedDistribution | dist.Independent):
        base = base.base_dist
    kind = type(base).__name__
    remedy = "sum it out of the model, or observe it"
    if not function.has_enumerate_support:
        raise ModelError(f"latent variable {name!r} is discrete ({kind}), without a finite number of values; {remedy}")
    if site["infer"].get("enumerate", "parallel") != "parallel":
        raise ModelError(
            f"latent variable {name!r} is discrete ({kind}) and marked infer={{'enumerate': "
            f"{site['infer']['enumerate']!r}}}; mark it 'parallel', or leave the mark out"
        )
    if importlib.util.find_spec("funsor") is None:
        raise ModelError(
            f"latent variable {name!r} is discrete ({kind}); with the package funsor installed (pip install funsor) it "
            f"is summed over, without it {remedy}"
        )

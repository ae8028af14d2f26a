"""Decides what the caller of `sample` left open, and refuses what cannot be, before anything is compiled."""

from collections.abc import Sequence
from typing import Any, cast

from pelton.engine.arguments import seed_of, whole
from pelton.engine.errors import ArgumentError
from pelton.engine.mesh import Mesh, divided
from pelton.engine.posterior import Posterior
from pelton.engine.precision import choose_precision
from pelton.engine.samplers import DEFAULT, Sampler, sampler_class
from pelton.engine.samplers.base import Ensemble
from pelton.engine.settings import Method, Settings
from pelton.engine.starts import check_start
from pelton.engine.stopping import Target


def check_settings(
    sampler: str | None,
    chains: int,
    warmup: int,
    draws: int,
    seed: int,
    target_accept: float | None,
    max_tree_depth: int,
    stop_at: Target | None = None,
) -> None:
    """Refuses settings out of range.

    Raises:
        ArgumentError: with the name, the value and what it may be.
    """
    if sampler is not None:
        sampler_class(sampler)
    for what, value, least in (
        ("chains", chains, 1),
        ("draws", draws, 1),
        ("warmup", warmup, 0),
        ("max_tree_depth", max_tree_depth, 1),
    ):
        whole(what, value, least)
    seed_of(seed)
    if target_accept is not None and not 0 < target_accept < 1:
        raise ArgumentError(f"target_accept lies between 0 and 1, not {target_accept!r}; 0.8 is usual")
    if stop_at is not None and not isinstance(stop_at, Target):
        raise ArgumentError(f"stop_at is a pelton.Target or None, not {stop_at!r}")


def plan(
    posterior: Posterior,
    platform: str,
    *,
    sampler: str | None,
    chains: int,
    warmup: int,
    draws: int,
    seed: int,
    target_accept: float | None,
    max_tree_depth: int,
    metric: str,
    precision: str | None,
    chain_method: str | None,
    start: str | None = None,
    stop_at: Target | None = None,
    groups: Sequence[str] = (),
    keep_warmup: bool = False,
    mesh: Mesh | None = None,
) -> Settings:
    """All settings of a run of that posterior on a kind of device; `pelton.sample` says what each means."""
    name = sampler or posterior.sampler or DEFAULT
    kind = sampler_class(name)
    if mesh is not None:
        chain_method = _on_mesh(mesh, name, chain_method, posterior)
    if target_accept is None:
        asked = None if kind.local_steps else posterior.target_accept
        target_accept = kind.default_target_accept if asked is None else asked
    return Settings(
        sampler=name,
        chains=int(chains),
        warmup=int(warmup),
        draws=int(draws),
        seed=int(seed),
        target_accept=float(target_accept),
        max_tree_depth=int(max_tree_depth),
        metric=_metric(metric, name, posterior.dimension),
        precision=choose_precision(precision, platform),
        platform=platform,
        chain_method=_method(chain_method, name, chains, platform),
        start=check_start(start, posterior, kind),
        stop_at=stop_at,
        groups=tuple(groups),
        keep_warmup=bool(keep_warmup),
        mesh=mesh,
    )


def sampler_of(settings: Settings, posterior: Posterior, **more: Any) -> Sampler:
    """The sampler with its settings, and `more` that are its own alone.

    Raises:
        ArgumentError: the posterior has too many dimensions for it.
    """
    kind = sampler_class(settings.sampler)
    widest = posterior.widest if kind.by_blocks else posterior.dimension
    if kind.max_dimension is not None and widest > kind.max_dimension:
        raise ArgumentError(
            f"sampler {settings.sampler!r} takes at most {kind.max_dimension} dimensions"
            f"{' a block' if kind.by_blocks else ''} and this posterior has {widest}; use {DEFAULT!r}"
        )
    return kind(
        warmup_steps=settings.warmup if kind.needs_warmup else 0,
        target_accept=settings.target_accept,
        max_tree_depth=settings.max_tree_depth,
        metric=settings.metric,
        **more,
    )


def _method(chain_method: str | None, sampler: str, chains: int, platform: str) -> Method:
    if chain_method not in (None, "threads", "vectorized"):
        raise ArgumentError(f"chain_method is 'threads', 'vectorized' or None (by device), not {chain_method!r}")
    kind = sampler_class(sampler)
    if issubclass(kind, Ensemble):
        if chain_method == "threads":
            raise ArgumentError(
                f"sampler {sampler!r} runs all chains together, not on threads; leave chain_method out, or say "
                "'vectorized'"
            )
        if chains < kind.least_chains:
            raise ArgumentError(
                f"sampler {sampler!r} learns from its chains together and needs at least {kind.least_chains}, not "
                f"{chains}; ask for more chains, or use {DEFAULT!r}"
            )
        return "vectorized"
    if chain_method is None:
        return "threads" if platform == "cpu" else "vectorized"
    return cast("Method", chain_method)


def _on_mesh(mesh: Mesh, sampler: str, chain_method: str | None, posterior: Posterior) -> str:
    if not isinstance(mesh, Mesh):
        raise ArgumentError(f"mesh is a pelton.Mesh or None, not {mesh!r}")
    if chain_method == "threads":
        raise ArgumentError("a mesh runs its chains vectorized, not on threads; leave chain_method out, or mesh")
    if mesh.chains > 1 and issubclass(sampler_class(sampler), Ensemble):
        raise ArgumentError(
            f"the chains of sampler {sampler!r} learn from one another at every step and stay together: take "
            f"Mesh(data={mesh.devices}), or {DEFAULT!r}"
        )
    if mesh.data > 1:
        divided(posterior, mesh.data)
    return "vectorized"


def _metric(metric: str, sampler: str, dimension: int) -> str:
    kind = sampler_class(sampler)
    offered = kind.metrics
    if metric == "auto":
        return offered[0] if dimension <= kind.dense_up_to else offered[min(1, len(offered) - 1)]
    if metric not in offered:
        raise ArgumentError(
            f"metric of the sampler {sampler!r} is 'auto' or one of {', '.join(offered)}, not {metric!r}"
        )
    return metric

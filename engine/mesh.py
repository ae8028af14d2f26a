"""Mesh: how a run is laid over devices, groups of chains one way and shards of the data the other."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from pelton.engine.arguments import whole
from pelton.engine.errors import ArgumentError
from pelton.engine.posterior import Posterior

_AXIS = "data"


@dataclass(frozen=True)
class Mesh:
    """Devices in `chains` rows of `data` each.

    Chains are divided over the rows. Within a row the arrays that the log density sums over are divided along their
    leading axis: a panel by geo, units by unit, histograms of counts by value. Each device sums its own part and the
    sums are added up, once a gradient. That changes no posterior, and draws only in their rounding.

    Args:
        chains: rows, which share the chains out; at most as many as there are chains.
        data: devices of a row.

    Raises:
        ArgumentError: a number is below 1.

    >>> Mesh(chains=2, data=4).devices
    8
    """

    chains: int = 1
    data: int = 1

    def __post_init__(self) -> None:
        whole("chains of a mesh", self.chains, 1)
        whole("data of a mesh", self.data, 1)

    @property
    def devices(self) -> int:
        """How many there must be."""
        return self.chains * self.data

    def places(self, devices: Sequence[Any], chains: int) -> list[Any]:
        """Where each row of chains is: a device, or the sharding of what all devices of a row hold whole.

        Raises:
            ArgumentError: there are too few devices, or fewer chains than rows.
        """
        if self.devices > len(devices):
            kind = devices[0].platform
            remedy = f"; XLA_FLAGS=--xla_force_host_platform_device_count={self.devices} makes them of a processor"
            raise ArgumentError(
                f"{self!r} wants {self.devices} devices and there are {len(devices)} of the kind {kind!r} here"
                f"{remedy if kind == 'cpu' else ''}; or ask for a smaller mesh"
            )
        if self.chains > chains:
            raise ArgumentError(f"{self!r} has more rows than the run has chains ({chains}); take more chains")
        rows = np.array(devices[: self.devices]).reshape(self.chains, self.data)
        if self.data == 1:
            return list(rows[:, 0])
        return [NamedSharding(jax.sharding.Mesh(row, (_AXIS,)), PartitionSpec()) for row in rows]


def first_device(place: Any) -> Any:
    """The device of a place, or the first of its row."""
    return sorted(place.device_set, key=lambda one: one.id)[0] if isinstance(place, NamedSharding) else place


def divided(posterior: Posterior, parts: int) -> tuple[Any, Any]:
    """The data with rows of zeros where that makes an axis divide, and whether each leaf is divided.

    Which axis: the one of most numbers, and of the leaves whose axis takes rows of zeros, theirs.

    Raises:
        ArgumentError: the axis does not divide, or there is none.
    """
    leaves, treedef = jax.tree.flatten(posterior.data)
    leaves = [np.asarray(leaf) for leaf in leaves]
    zeros = [False] * len(leaves) if posterior.zero_rows is None else jax.tree.leaves(posterior.zero_rows)
    if posterior.batch is not None:
        # A member of a batch is a posterior by itself, and as good an axis as any.
        zeros = [False] * len(leaves)
    sizes: dict[int, int] = {}
    for leaf, takes in zip(leaves, zeros, strict=True):
        if leaf.ndim and not takes:
            sizes[leaf.shape[0]] = sizes.get(leaf.shape[0], 0) + leaf.size
    length = max(sizes, key=lambda one: sizes[one]) if sizes else 1
    if not any(zeros) and length % parts:
        what = f"an axis of {length}" if length > 1 else "no array to divide"
        raise ArgumentError(
            f"the data of this model cannot be divided over {parts} devices: they have {what}; take a mesh whose data "
            f"divides {length}, or chains alone, Mesh(chains={parts})"
        )
    cut = [bool(leaf.ndim) and (takes or leaf.shape[0] == length) for leaf, takes in zip(leaves, zeros, strict=True)]
    if any(zeros):
        cut = [bool(takes) for takes in zeros]
    padded = [
        np.pad(leaf, ((0, -len(leaf) % parts), *((0, 0),) * (leaf.ndim - 1))) if one else leaf
        for leaf, one in zip(leaves, cut, strict=True)
    ]
    return jax.tree.unflatten(treedef, padded), jax.tree.unflatten(treedef, cut)


def placed(posterior: Posterior, place: Any) -> Any:
    """The posterior's data on a device, or divided over a row of devices."""
    if not isinstance(place, NamedSharding):
        return jax.device_put(jax.tree.map(jax.numpy.asarray, posterior.data), place)
    data, cut = divided(posterior, place.num_devices)
    along = NamedSharding(place.mesh, PartitionSpec(_AXIS))
    return jax.tree.map(lambda leaf, one: jax.device_put(jax.numpy.asarray(leaf), along if one else place), data, cut)

"""The settings of a run, all decided."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal

import jax

from pelton.engine.mesh import Mesh
from pelton.engine.precision import Precision, using
from pelton.engine.stopping import Target

type Method = Literal["threads", "vectorized"]


@dataclass(frozen=True)
class Settings:
    """What `pelton.sample` was asked for, with nothing left to choose; its arguments say what each means.

    Attributes:
        platform: "cpu", "gpu" or "tpu".
    """

    sampler: str
    chains: int
    warmup: int
    draws: int
    seed: int
    target_accept: float
    max_tree_depth: int
    metric: str
    precision: Precision
    platform: str
    chain_method: Method
    start: str | None
    stop_at: Target | None
    groups: tuple[str, ...]
    keep_warmup: bool
    mesh: Mesh | None = None

    @property
    def keeps_warmup(self) -> bool:
        """Whether there is a warm-up to keep, and it is kept."""
        return self.keep_warmup and self.warmup > 0

    def plain(self) -> dict[str, Any]:
        """As JSON has it.

        >>> adapted = (0.8, 10, "dense", "float64")
        >>> settings = Settings("nuts", 4, 9, 9, 0, *adapted, "cpu", "threads", None, Target(), ("prior",), False)
        >>> Settings.of(settings.plain()) == settings
        True
        """
        return asdict(self) | {"groups": list(self.groups)}

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> "Settings":
        """From what `plain` gave."""
        target, mesh = stored["stop_at"], stored.get("mesh")
        return cls(
            **{
                **stored,
                "groups": tuple(stored["groups"]),
                "stop_at": None if target is None else Target(**target),
                "mesh": None if mesh is None else Mesh(**mesh),
            }
        )

    def attrs(self, sampler: str, metric: str, warmup: int, device: str) -> dict[str, Any]:
        """What a tree's attributes record of the settings, with what the run made of them."""
        return {
            "sampler": sampler,
            "chains": self.chains,
            "draws": self.draws,
            "warmup": warmup,
            "seed": self.seed,
            "target_accept": self.target_accept,
            "max_tree_depth": self.max_tree_depth,
            "metric": metric,
            "precision": self.precision,
            "device": device,
            "chain_method": self.chain_method,
            **({} if self.start is None else {"start": self.start}),
            **({} if self.mesh is None else {"mesh": repr(self.mesh)}),
        }

    def places(self, devices: Sequence[Any]) -> Sequence[Any]:
        """Where groups of chains run, of those devices."""
        return devices if self.mesh is None else self.mesh.places(devices, self.chains)

    @contextmanager
    def in_force(self, devices: Sequence[Any]) -> Iterator[None]:
        """The precision and the device of everything inside."""
        with using(self.precision), jax.default_device(devices[0]):
            yield

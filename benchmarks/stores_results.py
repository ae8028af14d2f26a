"""What the stores benchmark found: a row for each system, the truth, and what the figures depend on."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from pelton.benchmarks.quadrature import Moments
from pelton.engine.errors import UnknownNameError

type Answer = Literal["right", "WRONG", "few draws"]

# Metropolis moves for each draw of the rates, in the form of the reference that has several.
MOVES = 30
CORRECTED = "scipy corrected"
PUBLISHED = "scipy as published"
MANY_MOVES = f"scipy corrected, {MOVES} moves"


@dataclass(frozen=True)
class Row:
    """One system's figures. Times and effective sample sizes are medians over its runs.

    Attributes:
        system: "pelton NAME", or a form of the reference.
        cores: that it could use.
        runs: timed runs, each with a seed of its own.
        mean, z: of alpha and beta over all runs, and their distance from the truth in standard errors.
        answer: "right"; "WRONG" past 5 standard errors; "few draws" where all runs together have fewer than
            400 effective draws and so prove little.
        ess: smallest bulk effective sample size over alpha and beta, of one run.
        seconds: of one run. Ours: from counts to draws, model building, warm-up and diagnostics included,
            programs compiled. The reference: pilot, burn-in and draws.
        ess_per_second: median of the runs' quotients.
        ratio: ess_per_second over that of the corrected reference; None for a wrong answer.
        cold_seconds, cached_seconds: of a fresh process, from its start to 1,000 effective draws or more,
            with an empty and a filled compilation cache; None where not measured or not reached.
        cold_ess: least effective sample size of those processes.
        details: settings, and seconds spent inside.
        warnings: what the runs warned of.
    """

    system: str
    cores: int
    runs: int
    mean: dict[str, float]
    z: dict[str, float]
    answer: Answer
    ess: float
    seconds: float
    ess_per_second: float
    ratio: float | None = None
    cold_seconds: float | None = None
    cached_seconds: float | None = None
    cold_ess: float | None = None
    details: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Memory:
    """Peak resident memory of a fresh process that samples and summarises every unit.

    Attributes:
        sampler: by which sampler.
        draws: over all chains.
        peak_bytes: of the whole process.
        seconds: from its start to the summaries.
    """

    sampler: str
    draws: int
    peak_bytes: int
    seconds: float


@dataclass(frozen=True)
class Results:
    """All that one call measured.

    Attributes:
        stores: how many.
        source: where their counts come from.
        truth: posterior moments by quadrature.
        rows: one a system.
        memory: None where not measured.
        machine, versions, commit: what the figures depend on.
        recorded: date and time, UTC.
    """

    stores: int
    source: str
    truth: Moments
    rows: list[Row]
    memory: Memory | None
    machine: dict[str, Any]
    versions: dict[str, str]
    commit: str | None
    recorded: str

    def as_record(self) -> dict[str, Any]:
        """The results as a JSON line holds them."""
        return {"benchmark": "stores"} | dataclasses.asdict(self)

    @classmethod
    def of_record(cls, line: dict[str, Any]) -> "Results":
        """The results that a JSON line holds."""
        fields = {name: value for name, value in line.items() if name != "benchmark"}
        fields["truth"] = Moments(**fields["truth"])
        fields["rows"] = [Row(**row) for row in fields["rows"]]
        fields["memory"] = None if fields["memory"] is None else Memory(**fields["memory"])
        return cls(**fields)

    def row(self, system: str) -> Row:
        """The row of that system.

        Raises:
            UnknownNameError: it is not among the rows.
        """
        found = {row.system: row for row in self.rows}
        if system not in found:
            raise UnknownNameError("system", system, found)
        return found[system]

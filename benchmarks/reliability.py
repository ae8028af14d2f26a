"""Writes docs/reliability.md: how many inputs were tried and how they ended, and the faults of the soak.

    python -m pelton.benchmarks.reliability [--times 10] [--soak FILE]

runs the properties of tests/fuzz with so many times the examples that `make test` tries, other ones each time, and puts
their counts between the markers of docs/reliability.md; `--times 0` leaves those that stand there. FILE holds the line
of JSON that `python -m pelton.benchmarks.soak` prints. It needs a checkout and the libraries of the tests.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pelton.benchmarks.record import CHECKOUT

PAGE = CHECKOUT / "docs" / "reliability.md"
# What the soak counts, in the order of the table.
FAULTS = (
    *("minutes", "runs", "kills", "power cuts", "full disks", "files cut", "numbers compared"),
    "numbers different",
)


def input_rows(rows: Sequence[Mapping[str, Any]], times: float) -> str:
    """The table of inputs.

    Args:
        rows: of the tallies: inputs, tried, fitted, refused (by class of error). Those of the same inputs are added up.
        times: how many times the examples of `make test`.
    """
    tried, fitted, refused = Counter[str](), Counter[str](), dict[str, Counter[str]]()
    for row in rows:
        tried[row["inputs"]] += row["tried"]
        fitted[row["inputs"]] += row["fitted"]
        refused.setdefault(row["inputs"], Counter()).update(row["refused"])
    lines = ["| Inputs | Tried | Went through | Refused in our own words |", "| --- | ---: | ---: | --- |"]
    for name in tried:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in refused[name].most_common() if count)
        lines.append(f"| {name} | {tried[name]:,} | {fitted[name]:,} | {kinds or '0'} |")
    total = sum(tried.values())
    lines.append(f"| **All** | **{total:,}** | **{sum(fitted.values()):,}** | **{total - sum(fitted.values()):,}** |")
    head = f"{total:,} inputs, {times:g} times those of `make test`; a foreign exception among them: 0."
    return "\n".join([head, "", *lines])


def fault_rows(found: Mapping[str, Any]) -> str:
    """The table of faults, of the soak's counts."""
    lines = ["| What | Count |", "| --- | ---: |"]
    lines += [f"| {name} | {found.get(name, 0):,} |" for name in FAULTS]
    lines += [f"| faults, stage {name!r} | {count:,} |" for name, count in found["faults by stage"].items()]
    lines.append(f"| failures | {len(found['failures']):,} |")
    return "\n".join([*lines, "", f"Versions: {found['versions']}."])


def between(text: str, name: str, content: str) -> str:
    """The text with the content between the markers of that name.

    >>> print(between("<!-- x -->old<!-- end of x -->", "x", "new"))
    <!-- x -->
    <BLANKLINE>
    new
    <BLANKLINE>
    <!-- end of x -->
    """
    first, last = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, rest = text.split(first)
    _, after = rest.split(last)
    return f"{before}{first}\n\n{content}\n\n{last}{after}"


def _tried(times: float) -> list[dict[str, Any]]:
    """The tallies of the properties; the exit status is theirs where one fails."""
    with tempfile.TemporaryDirectory() as folder:
        tally = Path(folder) / "tally.jsonl"
        settings = os.environ | {"PELTON_FUZZ_EXAMPLES": str(times), "PELTON_FUZZ_TALLY": str(tally)}
        command = [sys.executable, "-m", "pytest", "-q", "tests/fuzz", "-p", "no:cacheprovider", "--timeout", "14400"]
        status = subprocess.run(command, cwd=CHECKOUT, env=settings, check=False).returncode
        if status:
            sys.exit(status)
        return [json.loads(line) for line in tally.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    """Runs the properties and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--times", type=float, default=10.0, help="examples, as times those of make test; 0: none")
    parser.add_argument("--soak", type=Path, metavar="FILE", help="the line of JSON that the soak prints")
    options = parser.parse_args()
    text = PAGE.read_text(encoding="utf-8")
    if options.times > 0:
        text = between(text, "inputs", input_rows(_tried(options.times), options.times))
    if options.soak is not None:
        # The soak's progress may stand above its last line.
        line = options.soak.read_text(encoding="utf-8").strip().splitlines()[-1]
        text = between(text, "faults", fault_rows(json.loads(line)))
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

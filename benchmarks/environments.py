"""Rivals' environments: where they are, how one is made, and why one is not there.

`python -m pelton.benchmarks.environments install NAME ...` makes them; without a name, all.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from pelton.engine.errors import UnknownNameError

RIVALS = Path(__file__).resolve().parent / "rivals"
LAUNCH = RIVALS / "launch.py"
# pelton runs in the environment that the suite runs in.
OURS = "pelton"
MINUTES = 30


def names() -> list[str]:
    """Rivals with a folder here, pelton left out.

    >>> "emcee" in names()
    True
    """
    return sorted(folder.parent.name for folder in RIVALS.glob("*/run.py") if folder.parent.name != OURS)


def known(name: str) -> str:
    """The rival's name; a hyphen stands for an underscore.

    Raises:
        UnknownNameError: there is no such rival.

    >>> known("scipy-gibbs")
    'scipy_gibbs'
    """
    found = name.replace("-", "_")
    if found not in (*names(), OURS):
        raise UnknownNameError("rival", name, [*names(), OURS])
    return found


def folder() -> Path:
    """Where the environments stand: PELTON_RIVALS, or rivals/ in pelton's cache folder."""
    if os.environ.get("PELTON_RIVALS"):
        return Path(os.environ["PELTON_RIVALS"]).expanduser()
    cache = os.environ.get("PELTON_CACHE_DIR") or Path.home() / ".cache" / "pelton"
    return Path(cache).expanduser() / "rivals"


def interpreter(name: str) -> Path:
    """The Python that runs a rival."""
    if name == OURS:
        return Path(sys.executable)
    place = folder() / name
    return place / "Scripts" / "python.exe" if os.name == "nt" else place / "bin" / "python"


def _reason_file(name: str) -> Path:
    return folder() / f"{name}.reason.txt"


def reason(name: str) -> str | None:
    """Why a rival cannot run; None where it can."""
    if _reason_file(name).exists():
        return _reason_file(name).read_text().strip()
    if not interpreter(name).exists():
        return "not installed; pelton bench --install makes its environment"
    return None


def _words(output: str) -> str:
    """The line of a failed command's output that says why."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    said = [line for line in lines if line.startswith("ERROR:") or "Error:" in line]
    return (said or lines or ["no message"])[-1].removeprefix("ERROR: ")


def install(name: str) -> str | None:
    """Makes a rival's environment anew, and imports what it runs by.

    Returns:
        None, or why it cannot be used, in pip's or Python's words; `reason` says the same afterwards.

    Raises:
        UnknownNameError: there is no such rival.
    """
    name = known(name)
    if name == OURS:
        return None
    place = folder() / name
    place.parent.mkdir(parents=True, exist_ok=True)
    _reason_file(name).unlink(missing_ok=True)
    shutil.rmtree(place, ignore_errors=True)
    python = str(interpreter(name))
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    for command in (
        [sys.executable, "-m", "venv", str(place)],
        [*pip, "-r", str(RIVALS / name / "requirements.txt")],
        [python, str(LAUNCH), "--check", name],
    ):
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=60 * MINUTES, env=environment, check=False
            )
        except subprocess.TimeoutExpired:
            why = f"{' '.join(command[1:4])} took more than {MINUTES} minutes"
        else:
            if done.returncode == 0:
                continue
            why = _words(done.stderr + done.stdout)
        _reason_file(name).write_text(why + "\n")
        return why
    return None


def main(arguments: list[str] | None = None) -> None:
    """Makes environments, or lists them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["install", "list"])
    parser.add_argument("names", nargs="*", help="rivals; all where none is named")
    asked = parser.parse_args(arguments)
    for name in [known(name) for name in asked.names] or names():
        why = install(name) if asked.what == "install" else reason(name)
        print(f"{name}: {why or 'ready'}", flush=True)


if __name__ == "__main__":
    main()

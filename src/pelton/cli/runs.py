"""Reads what `pelton fit` wrote: the draws of a run, and what its command line said."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray as xr

# The attribute of the tree that keeps what the command line said, for `report` and `predict`.
COMMAND = "fit_command"


def posterior_file(run: str, command: str = "pelton fit") -> Path:
    """The file of a run's draws.

    Args:
        run: a folder that `pelton fit` wrote, or its posterior.nc.
        command: that would have written it, for the message.

    Raises:
        DataError: there is none.
    """
    from pelton.engine.errors import DataError

    path = Path(run)
    file = path / "posterior.nc" if path.is_dir() else path
    if file.is_file():
        return file
    if path.is_dir():
        raise DataError(f"there is no posterior.nc in {run!r}; give a folder that `{command}` wrote")
    raise DataError(f"there is no {run!r}; give a folder that `{command}` wrote, or its posterior.nc")


def read_tree(file: Path) -> "xr.DataTree":
    """The tree in a file.

    Raises:
        DataError: it is none.
    """
    import xarray as xr

    from pelton.engine.errors import DataError

    try:
        with xr.open_datatree(file, engine="h5netcdf") as tree:
            return tree.load()
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{str(file)!r} cannot be read as the draws of a fit: {reason}") from None


def kind(tree: "xr.DataTree", file: Path) -> str:
    """What was fitted: "rates" or "media mix".

    Raises:
        DataError: neither.
    """
    from pelton.engine.errors import DataError

    if "media_mix" in tree.attrs:
        return "media mix"
    if "observed_data" in tree.children and "successes" in tree["observed_data"].data_vars:
        return "rates"
    raise DataError(f"{str(file)!r} holds a tree of neither rates nor a media mix; give a run of `pelton fit`")


def remember(tree: "xr.DataTree", command: Mapping[str, Any]) -> None:
    """Keeps what the command line said in the tree."""
    tree.attrs[COMMAND] = json.dumps({name: value for name, value in command.items() if value is not None})


def remembered(tree: "xr.DataTree") -> dict[str, Any]:
    """What the command line said; empty of a tree that another maker wrote."""
    found = json.loads(str(tree.attrs.get(COMMAND, "{}")))
    return found if isinstance(found, dict) else {}


def problems(tree: "xr.DataTree") -> list[str]:
    """What speaks against the draws, in the words of the fit."""
    if int(tree.attrs.get("converged", 1)):
        return []
    return str(tree.attrs["status"]).removeprefix("NOT CONVERGED: ").split(" | ")

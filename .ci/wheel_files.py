"""Compares the files of a wheel with those of the tree: nothing missing, nothing twice, no bare top-level names."""

import subprocess
import sys
import zipfile
from pathlib import Path

FOLDERS = ("engine", "kernels", "models", "benchmarks")
DATA = {".csv", ".j2", ".jinja", ".html", ".css", ".js", ".typed"}


def expected(root: Path) -> set[str]:
    """Where each tracked or new file of the package lies once installed."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    files = set()
    for name in listed:
        path = Path(name)
        if (root / path).is_symlink() or not (root / path).is_file():
            continue
        if path.suffix != ".py" and path.suffix not in DATA:
            continue
        if path.parts[0] in FOLDERS:
            files.add(f"pelton/{path.as_posix()}")
        elif path.parts[:2] == ("src", "pelton"):
            files.add(path.relative_to("src").as_posix())
    return files


def main() -> int:
    root = Path(__file__).resolve().parents[1]
    with zipfile.ZipFile(sys.argv[1]) as wheel:
        names = wheel.namelist()
    packed = {name for name in names if ".dist-info/" not in name}
    wanted = expected(root)
    problems = [f"missing: {name}" for name in sorted(wanted - packed)]
    problems += [f"not in the tree: {name}" for name in sorted(packed - wanted) if Path(name).suffix in {".py", *DATA}]
    problems += [f"outside pelton/: {name}" for name in sorted(packed) if not name.startswith("pelton/")]
    problems += [f"twice: {name}" for name in sorted(packed) if names.count(name) > 1]
    print("\n".join(problems) or f"wheel: {len(packed)} files, as in the tree")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())

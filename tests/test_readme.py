"""The README's Python runs as it stands, and importing pelton loads no numerical library."""

import re
import subprocess
import sys
import warnings
from pathlib import Path

from pelton.engine.errors import ConvergenceWarning

README = Path(__file__).resolve().parents[1] / "README.md"


def test_the_readmes_python_runs():
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert blocks
    for block in blocks:
        scope: dict = {}
        with warnings.catch_warnings():
            # A transition or two in thousands may diverge on one machine and not on the next.
            warnings.simplefilter("ignore", ConvergenceWarning)
            exec(compile(block, "README.md", "exec"), scope)
        found = scope["tree"].attrs
        assert found["worst_rhat"] <= 1.01
        assert found["least_ess_bulk"] >= 400
        assert found["divergences"] <= 8


def test_importing_pelton_loads_nothing_heavy():
    code = (
        "import sys, pelton\n"
        "assert pelton.__version__\n"
        "heavy = {'jax', 'numpy', 'numpyro', 'arviz', 'pandas', 'xarray', 'matplotlib'} & set(sys.modules)\n"
        "print(sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there_and_documented():
    import pelton

    for name in dir(pelton):
        if not name.startswith("_") and name not in ("Any", "TYPE_CHECKING", "importlib"):
            assert getattr(pelton, name).__doc__, name

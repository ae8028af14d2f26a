"""The type checker of the test run: beartype, for which an int may stand where a float is asked for (PEP 484)."""

from beartype import BeartypeConf, beartype

typecheck = beartype(conf=BeartypeConf(is_pep484_tower=True))

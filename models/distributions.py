"""NumPyro distributions of one number: written as text and read back, compared by value, and the ends of their support.

A distribution reads as its call does in Python, parameters by position or by name:

    Beta(1, 3)    HalfNormal(scale=0.5)    TruncatedNormal(1, 1.5, low=0, high=11)

The text is parsed, never run: a family's name and plain numbers are all that it may hold.
"""

import ast
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import constraints

from pelton.engine.errors import ArgumentError, UnknownNameError

# What text may name: continuous distributions of one number that keep their parameters under their own names.
FAMILIES: dict[str, Callable[..., dist.Distribution]] = {
    family.__name__: family
    for family in (
        dist.AsymmetricLaplace,
        dist.Beta,
        dist.Cauchy,
        dist.Exponential,
        dist.Gamma,
        dist.Gompertz,
        dist.Gumbel,
        dist.HalfCauchy,
        dist.HalfNormal,
        dist.InverseGamma,
        dist.Kumaraswamy,
        dist.Laplace,
        dist.LogNormal,
        dist.LogUniform,
        dist.Logistic,
        dist.Normal,
        dist.Pareto,
        dist.SoftLaplace,
        dist.StudentT,
        dist.TruncatedCauchy,
        dist.TruncatedNormal,
        dist.Uniform,
        dist.Weibull,
    )
}
_EXAMPLE = "write a family with its numbers, such as Beta(1, 3) or HalfNormal(scale=0.5)"


def parse(text: str) -> dist.Distribution:
    """The distribution that a text such as "Beta(1, 3)" describes.

    Args:
        text: a name of `FAMILIES` and its parameters, by position or by name as NumPyro calls them; numbers only.

    Raises:
        UnknownNameError: no such family, or no such parameter; the message lists the nearest.
        ArgumentError: the text does not read as a distribution, parameters are missing or too many, or a number is out
            of its range.

    >>> to_text(parse("HalfNormal(scale=0.5)"))
    'HalfNormal(0.5)'
    >>> parse("Beta(1, -3)")
    Traceback (most recent call last):
        ...
    pelton.engine.errors.ArgumentError: 'Beta(1, -3)': concentration0 is -3; it must be positive
    """
    if not isinstance(text, str):
        raise ArgumentError(f"a distribution is read from text, not from {type(text).__name__}; {_EXAMPLE}")
    try:
        call = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        call = None
    function = call.func if isinstance(call, ast.Call) else None
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.value.id == "dist":
        # As in Python, after "import numpyro.distributions as dist".
        function = ast.Name(function.attr)
    if not isinstance(call, ast.Call) or not isinstance(function, ast.Name):
        raise ArgumentError(f"{text!r} does not read as a distribution; {_EXAMPLE}")
    name = function.id
    if name not in FAMILIES:
        raise UnknownNameError("distribution", name, FAMILIES)
    given = _bound(text, name, call)
    _check_ranges(text, name, given)
    return FAMILIES[name](**given)


def to_text(distribution: dist.Distribution) -> str:
    """The distribution as `parse` reads it, with every digit of its parameters.

    A distribution outside `FAMILIES` is written for readers alone, by its class and what it is made of.

    >>> import numpyro.distributions as dist
    >>> to_text(dist.TruncatedNormal(1.0, 1.5, low=0.0, high=11.0))
    'TruncatedNormal(1, 1.5, low=0, high=11)'
    """
    name, by_position, by_name = _taken_apart(distribution)
    parts = [value if isinstance(value, str) else _digits(value) for value in by_position]
    parts += [f"{key}={_digits(value)}" for key, value in by_name.items()]
    return f"{name}({', '.join(parts)})"


def scalar(distribution: Any, what: str) -> dist.Distribution:
    """The distribution with plain numbers as parameters: part of a model, the same in every precision.

    Args:
        distribution: what was given.
        what: what it stands for, in the messages.

    Raises:
        ArgumentError: no distribution, or not of one number.

    >>> import numpyro.distributions as dist
    >>> scalar(0.5, "the prior of alpha")
    Traceback (most recent call last):
        ...
    pelton.engine.errors.ArgumentError: the prior of alpha is a NumPyro distribution, not float
    """
    if not isinstance(distribution, dist.Distribution):
        raise ArgumentError(f"{what} is a NumPyro distribution, not {type(distribution).__name__}")
    if distribution.batch_shape or distribution.event_shape:
        raise ArgumentError(
            f"{what} is a distribution of one number, not of shape {distribution.shape()}; give scalar parameters"
        )
    return jax.tree.map(_plain, distribution)


def identity(*distributions: dist.Distribution) -> tuple:
    """What makes distributions the same: their families and the bytes of their parameters; hashable.

    >>> import numpyro.distributions as dist
    >>> identity(dist.Beta(1.0, 3.0)) == identity(dist.Beta(1.0, 3.0)), dist.Beta(1.0, 3.0) == dist.Beta(1.0, 3.0)
    (True, False)
    """
    leaves, treedef = jax.tree.flatten(distributions)
    return treedef, tuple(np.asarray(leaf, np.float64).tobytes() for leaf in leaves)


def bounds(distribution: dist.Distribution, what: str) -> tuple[float, float]:
    """The ends of the support.

    Raises:
        ArgumentError: the support is no interval.

    >>> import numpyro.distributions as dist
    >>> bounds(dist.Uniform(0.1, 0.9), "the prior"), bounds(dist.LogNormal(0.0, 1.0), "the prior")
    ((0.1, 0.9), (0.0, inf))
    """
    support = distribution.support
    if support is constraints.real:
        return -np.inf, np.inf
    lower = float(getattr(support, "lower_bound", -np.inf))
    upper = float(getattr(support, "upper_bound", np.inf))
    if np.isinf(lower) and np.isinf(upper):
        raise ArgumentError(f"{what} has support {support!r}; an interval is needed")
    return lower, upper


def _bound(text: str, name: str, call: ast.Call) -> dict[str, float]:
    """The numbers of a call by parameter, defaults among them."""
    signature = inspect.signature(FAMILIES[name])
    known = [parameter for parameter in signature.parameters if parameter != "validate_args"]
    takes = f"{name} takes {', '.join(known)}"
    by_position = [_number(text, node) for node in call.args]
    by_name: dict[str, float] = {}
    for keyword in call.keywords:
        key = keyword.arg
        if key is None or key in by_name:
            raise ArgumentError(f"{text!r}: each parameter is written out, and once; {takes}")
        if key not in known:
            raise UnknownNameError(f"parameter of {name}", key, known)
        by_name[key] = _number(text, keyword.value)
    try:
        bound = signature.bind(*by_position, **by_name)
    except TypeError as error:
        raise ArgumentError(f"{text!r}: {error}; {takes}") from None
    bound.apply_defaults()
    return {key: value for key, value in bound.arguments.items() if value is not None}


def _number(text: str, node: ast.expr) -> float:
    sign = 1.0
    while isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        sign, node = (-sign if isinstance(node.op, ast.USub) else sign), node.operand
    value = node.value if isinstance(node, ast.Constant) else None
    if type(value) not in (int, float):
        raise ArgumentError(f"{text!r}: parameters are plain numbers, and {ast.unparse(node)!r} is none")
    try:
        number = float(value)  # pyright: ignore[reportArgumentType]
    except OverflowError:
        number = np.inf
    if not np.isfinite(number):
        raise ArgumentError(f"{text!r}: {ast.unparse(node)} is not a finite number")
    return sign * number


def _check_ranges(text: str, name: str, given: Mapping[str, float]) -> None:
    low, high = given.get("low"), given.get("high")
    if low is not None and high is not None and not low < high:
        raise ArgumentError(f"{text!r}: low is {low:g} and high is {high:g}; low must be less than high")
    if name.startswith("Truncated") and low is None and high is None:
        raise ArgumentError(f"{text!r}: nothing is cut off; give low=, high= or both")
    # A truncated distribution is made by a function, and its base has the remaining parameters.
    family: Any = getattr(dist, name.removeprefix("Truncated"))
    for key, constraint in family.arg_constraints.items():
        if key in given and constraint is constraints.positive and not given[key] > 0:
            raise ArgumentError(f"{text!r}: {key} is {given[key]:g}; it must be positive")


_TRUNCATED = (dist.LeftTruncatedDistribution, dist.RightTruncatedDistribution, dist.TwoSidedTruncatedDistribution)


def _taken_apart(distribution: Any) -> tuple[str, list[Any], dict[str, Any]]:
    """The family's name, parameters by position, and parameters by name."""
    name = type(distribution).__name__
    if isinstance(distribution, _TRUNCATED):
        base, values, _ = _taken_apart(distribution.base_dist)
        if f"Truncated{base}" in FAMILIES:
            ends = {key: getattr(distribution, key) for key in ("low", "high") if hasattr(distribution, key)}
            return f"Truncated{base}", values, ends
    elif name in FAMILIES:
        known = [key for key in inspect.signature(FAMILIES[name]).parameters if key != "validate_args"]
        return name, [getattr(distribution, key) for key in known], {}
    base = getattr(distribution, "base_dist", None)
    parts: list[Any] = [to_text(base)] if isinstance(base, dist.Distribution) else []
    parts += [type(transform).__name__ for transform in getattr(distribution, "transforms", ())]
    own = [getattr(distribution, key) for key in distribution.arg_constraints if key != "base_dist"]
    return name, parts + [number for value in own for number in np.ravel(value)], {}


def _plain(leaf: Any) -> Any:
    """A parameter as float64, or as a Python number; a float32 as the shortest decimal that rounds to it.

    NumPyro turns some parameters into JAX's current precision: 0.1 then comes back as 0.10000000149.
    """
    array = np.asarray(leaf)
    if array.dtype == np.float32:
        array = np.array([float(str(number)) for number in array.ravel()]).reshape(array.shape)
    return array.item() if array.size == 1 else array


def _digits(value: Any) -> str:
    return repr(float(_plain(value))).removesuffix(".0")

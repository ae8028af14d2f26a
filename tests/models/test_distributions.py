"""Distributions as text, against scipy's densities and NumPyro's own constructors."""

import jax
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats

from pelton.engine.errors import ArgumentError, UnknownNameError
from pelton.models.distributions import FAMILIES, bounds, identity, parse, scalar, to_text

READ = {
    "Beta(1, 3)": stats.beta(1, 3),
    "  HalfNormal(scale=0.5) ": stats.halfnorm(scale=0.5),
    "LogNormal(-0.2, scale=0.7)": stats.lognorm(0.7, scale=np.exp(-0.2)),
    "Gamma(3, 2)": stats.gamma(3, scale=0.5),
    "Normal()": stats.norm(),
    "dist.Normal(+1, 2e-1)": stats.norm(1, 0.2),
    "StudentT(4, 1, 2)": stats.t(4, 1, 2),
    "TruncatedNormal(1, 1.5, low=0, high=11)": stats.truncnorm(-1 / 1.5, 10 / 1.5, 1, 1.5),
    "TruncatedNormal(0.8, 0.8, low=0.1)": stats.truncnorm(-0.7 / 0.8, np.inf, 0.8, 0.8),
    "TruncatedNormal(loc=0.8, high=2)": stats.truncnorm(-np.inf, 1.2, 0.8, 1),
    "Pareto(1, 1.5)": stats.pareto(1.5),
    "Uniform(0.1, 0.9)": stats.uniform(0.1, 0.8),
    "Weibull(2, 1.5)": stats.weibull_min(1.5, scale=2),
    "InverseGamma(3, 2)": stats.invgamma(3, scale=2),
}
# Numbers for each family, none of which float32 can hold.
NUMBERS = {"LogUniform": (0.1, 0.7), "Uniform": (0.1, 0.7)}


@pytest.mark.parametrize("text", READ)
def test_reads_the_distribution(text):
    oracle = READ[text]
    x = oracle.ppf([0.05, 0.4, 0.9])
    with jax.enable_x64(True):
        found = parse(text).log_prob(x)
    # NumPyro keeps the parameters of some distributions in float32.
    np.testing.assert_allclose(found, oracle.logpdf(x), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_round_trip(name):
    family = FAMILIES[name]
    ends = {"low": 0.1, "high": 0.9} if name.startswith("Truncated") else {}
    given = family(*NUMBERS.get(name, (0.3, 0.7, 1.1)[: _required(name)]), **ends)
    text = to_text(given)
    assert text.startswith(f"{name}(")
    assert to_text(parse(text)) == text
    assert identity(scalar(parse(text), "it")) == identity(scalar(given, "it"))
    x = np.linspace(0.35, 0.65, 4)
    np.testing.assert_array_equal(parse(text).log_prob(x), given.log_prob(x))


def _required(name):
    return {"Exponential": 1, "HalfNormal": 1, "HalfCauchy": 1, "StudentT": 3, "AsymmetricLaplace": 3}.get(name, 2)


@pytest.mark.parametrize(
    ("distribution", "text"),
    [
        (dist.Beta(0.1, 3), "Beta(0.1, 3)"),
        (dist.Pareto(1.0, 1.5), "Pareto(1, 1.5)"),
        (dist.LogNormal(-1e-12, 1 / 3), "LogNormal(-1e-12, 0.3333333333333333)"),
        (dist.TruncatedNormal(0.1, 2.0, low=0.0), "TruncatedNormal(0.1, 2, low=0)"),
        (dist.TruncatedCauchy(0.1, 2.0, high=5.0), "TruncatedCauchy(0.1, 2, high=5)"),
        (dist.Delta(1.0), "Delta(1, 0)"),
        (dist.FoldedDistribution(dist.Normal(1.0, 2.0)), "FoldedDistribution(Normal(1, 2), AbsTransform)"),
        (
            dist.LeftTruncatedDistribution(dist.StudentT(4.0), low=0.5),
            "LeftTruncatedDistribution(StudentT(4, 0, 1), 0.5)",
        ),
    ],
)
def test_writes(distribution, text):
    assert to_text(distribution) == text


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("HalfNormall(1)", UnknownNameError, "unknown distribution 'HalfNormall'; did you mean 'HalfNormal'"),
        ("Bernoulli(0.5)", UnknownNameError, "unknown distribution 'Bernoulli'"),
        ("HalfNormal(sale=1)", UnknownNameError, "unknown parameter of HalfNormal 'sale'; did you mean 'scale'"),
        ("Beta(1)", ArgumentError, "concentration0.*Beta takes concentration1, concentration0"),
        ("Beta(1, 2, 3)", ArgumentError, "too many positional arguments; Beta takes"),
        ("Beta(1, concentration1=2)", ArgumentError, "multiple values for argument 'concentration1'"),
        ("HalfNormal(scale=1, scale=2)", ArgumentError, "written out, and once; HalfNormal takes scale"),
        ("Beta(**{'concentration1': 1})", ArgumentError, "written out, and once"),
        ("Beta(1, -3)", ArgumentError, "concentration0 is -3; it must be positive"),
        ("TruncatedNormal(0, -1, low=0)", ArgumentError, "scale is -1; it must be positive"),
        ("TruncatedNormal(0, 1)", ArgumentError, "nothing is cut off; give low=, high= or both"),
        ("TruncatedNormal(0, 1, low=2, high=1)", ArgumentError, "low is 2 and high is 1; low must be less than high"),
        ("Uniform(2)", ArgumentError, "low is 2 and high is 1"),
        ("Beta(a, 1)", ArgumentError, "parameters are plain numbers, and 'a' is none"),
        ("Beta(1 + 1, 1)", ArgumentError, "parameters are plain numbers, and '1 \\+ 1' is none"),
        ("Beta('1', 1)", ArgumentError, "parameters are plain numbers"),
        ("Beta(True, 1)", ArgumentError, "parameters are plain numbers"),
        ("Beta(1, 1j)", ArgumentError, "parameters are plain numbers"),
        ("Beta(*[1, 2])", ArgumentError, "parameters are plain numbers"),
        ("Beta(1e999, 1)", ArgumentError, "not a finite number"),
        (f"Beta({'9' * 400}, 1)", ArgumentError, "not a finite number"),
        ("Beta", ArgumentError, "does not read as a distribution; write a family with its numbers, such as Beta"),
        ("Beta(1, 2", ArgumentError, "does not read as a distribution"),
        ("Beta(1, 2); Beta(1, 2)", ArgumentError, "does not read as a distribution"),
        ("Beta(1, 2)(3)", ArgumentError, "does not read as a distribution"),
        ("numpyro.distributions.Beta(1, 2)", ArgumentError, "does not read as a distribution"),
        ("[Beta(1, 2)]", ArgumentError, "does not read as a distribution"),
        ("", ArgumentError, "does not read as a distribution"),
        ("\0", ArgumentError, "does not read as a distribution"),
        ("(" * 10_000, ArgumentError, "does not read as a distribution"),
        ("__import__('os').system('true')", ArgumentError, "does not read as a distribution"),
        ("eval('1')", UnknownNameError, "unknown distribution 'eval'"),
    ],
)
def test_what_does_not_read(text, error, words):
    with pytest.raises(error, match=words):
        parse(text)


def test_the_same_in_every_precision():
    """float32(0.1) is the 0.1 that was written, whatever JAX's precision where the prior was made."""

    def make():
        return scalar(dist.Pareto(0.1, 0.7), "it"), scalar(dist.Beta(0.1, 3), "it")

    single = make()
    with jax.enable_x64(True):
        double = make()
    assert identity(*single) == identity(*double)
    assert single[0].alpha == 0.7


def test_identity():
    one = [dist.Beta(1.0, 3.0), dist.Beta(1, 3), parse("Beta(1, 3)")]
    assert len({identity(scalar(each, "it")) for each in one}) == 1
    others = [dist.Beta(3.0, 1.0), dist.Beta(1.0, 3.5), dist.Kumaraswamy(1.0, 3.0), dist.Gamma(1.0, 3.0)]
    assert len({identity(scalar(each, "it")) for each in [*one, *others]}) == 5


def test_one_number():
    with pytest.raises(ArgumentError, match=r"the prior is a distribution of one number, not of shape \(2,\)"):
        scalar(dist.Beta(np.ones(2), np.ones(2)), "the prior")
    with pytest.raises(ArgumentError, match="the prior is a NumPyro distribution, not float"):
        scalar(0.5, "the prior")


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("Normal(0, 1)", (-np.inf, np.inf)),
        ("Beta(1, 3)", (0, 1)),
        ("HalfNormal(1)", (0, np.inf)),
        ("Pareto(2, 1.5)", (2, np.inf)),
        ("Uniform(-1, 2)", (-1, 2)),
        ("TruncatedNormal(0, 1, low=1)", (1, np.inf)),
        ("TruncatedNormal(0, 1, high=1)", (-np.inf, 1)),
        ("TruncatedNormal(0, 1, low=-1, high=1)", (-1, 1)),
        ("LogUniform(0.5, 4)", (0.5, 4)),
    ],
)
def test_bounds(text, ends):
    assert bounds(parse(text), "it") == ends


def test_a_support_without_ends():
    with pytest.raises(ArgumentError, match="an interval is needed"):
        bounds(dist.Delta(1.0), "the prior")

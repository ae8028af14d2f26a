"""Batting averages of 18 players from their first 45 at-bats of 1970, and how the season went on.

Data: Efron & Morris 1975, Data analysis using Stein's estimator and its generalizations, table 1: hits in the first 45
at-bats, and the average over the rest of the season.
"""

import numpy as np
import numpyro
import numpyro.distributions as dist

import pelton

PLAYERS = [
    "Clemente",
    "F. Robinson",
    "F. Howard",
    "Johnstone",
    "Berry",
    "Spencer",
    "Kessinger",
    "L. Alvarado",
    "Santo",
    "Swoboda",
    "Unser",
    "Williams",
    "Scott",
    "Petrocelli",
    "E. Rodriguez",
    "Campaneris",
    "Munson",
    "Alvis",
]
AT_BATS = np.full(18, 45)
HITS = np.array([18, 17, 16, 15, 14, 14, 13, 12, 11, 11, 10, 10, 10, 10, 10, 9, 8, 7])
REST_OF_SEASON = np.array(
    [0.346, 0.298, 0.276, 0.222, 0.273, 0.270, 0.263, 0.210, 0.269, 0.230, 0.264, 0.256, 0.303, 0.264, 0.226, 0.286]
    + [0.316, 0.200]
)


def model(at_bats, hits):
    """Hierarchical logits, as in NumPyro's example."""
    centre = numpyro.sample("centre", dist.Normal(-1.0, 1.0))
    spread = numpyro.sample("spread", dist.HalfCauchy(1.0))
    with numpyro.plate("player", len(at_bats)):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        logit = numpyro.deterministic("logit", centre + spread * z)
        numpyro.sample("hits", dist.Binomial(at_bats, logits=logit), obs=hits)


def posterior():
    return pelton.from_numpyro(model, AT_BATS, HITS, coords={"player": PLAYERS})


if __name__ == "__main__":
    tree = pelton.sample(posterior(), target_accept=0.95)
    rate = (1 / (1 + np.exp(-tree["posterior"]["logit"]))).mean(("chain", "draw"))
    print("player          first 45  partial pooling  rest of season")
    for player, raw, pooled, rest in zip(PLAYERS, HITS / AT_BATS, rate.values, REST_OF_SEASON, strict=True):
        print(f"{player:15s} {raw:8.3f} {pooled:16.3f} {rest:15.3f}")
    for name, guess in (("raw", HITS / AT_BATS), ("pooled", rate.values)):
        print(f"root mean square error, {name}: {np.sqrt(np.mean((guess - REST_OF_SEASON) ** 2)):.3f}")

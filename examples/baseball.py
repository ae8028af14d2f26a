"""Batting averages of 18 players from their first 45 at-bats of 1970, and how the season went on.

Data: Efron & Morris 1975, Data analysis using Stein's estimator and its generalizations, table 1: hits in the first 45
at-bats, and the average over the rest of the season.
"""

import numpy as np
import numpyro
import numpyro.distributions as dist

import pelton

# Player, hits in 45 at-bats, average over the rest of the season.
TABLE = """
Roberto Clemente, 18, 0.346
Frank Robinson, 17, 0.298
Frank Howard, 16, 0.276
Jay Johnstone, 15, 0.222
Ken Berry, 14, 0.273
Jim Spencer, 14, 0.270
Don Kessinger, 13, 0.265
Luis Alvarado, 12, 0.210
Ron Santo, 11, 0.269
Ron Swoboda, 11, 0.230
Rico Petrocelli, 10, 0.264
Ellie Rodriguez, 10, 0.226
George Scott, 10, 0.303
Del Unser, 10, 0.264
Billy Williams, 10, 0.330
Bert Campaneris, 9, 0.285
Thurman Munson, 8, 0.316
Max Alvis, 7, 0.200
"""
ROWS = [row.split(", ") for row in TABLE.strip().splitlines()]
PLAYERS = [player for player, _, _ in ROWS]
HITS = np.array([int(hits) for _, hits, _ in ROWS])
REST_OF_SEASON = np.array([float(rest) for _, _, rest in ROWS])
AT_BATS = np.full(len(ROWS), 45)


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
    print("player             first 45  partial pooling  rest of season")
    for player, raw, pooled, rest in zip(PLAYERS, HITS / AT_BATS, rate.values, REST_OF_SEASON, strict=True):
        print(f"{player:18s} {raw:8.3f} {pooled:16.3f} {rest:15.3f}")
    for name, guess in (("raw", HITS / AT_BATS), ("pooled", rate.values)):
        print(f"root mean square error, {name}: {np.sqrt(np.mean((guess - REST_OF_SEASON) ** 2)):.3f}")

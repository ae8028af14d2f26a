"""How the tests run samplers that want other than four chains."""

# What a sampler is run with where the usual four chains of two thousand draws are not what it is for.
SETTINGS: dict[str, dict] = {
    "chees": {"chains": 32, "draws": 500},
    # One leapfrog after another without fresh momenta: draws are worth less each, and there are many.
    "meads": {"chains": 32},
}

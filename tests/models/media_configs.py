"""A media mix config with something in every table."""

WHOLE = """
[data]
time = "week"
geo = "country"
target = "sales"
controls = ["price"]
events = ["holiday"]
population = "people"
missing = ["impute-zero-spend", "mask-target"]
frequency = "W-MON"

[channels.search]
media = "clicks"
spend = "search_cost"
kind = "search"

[channels.tv]
kind = "video"
adstock = "delayed"
l_max = 8
normalize = false
saturation = "tanh"

[model]
type = "media_mix"
pooling = { adstock = "pooled", effect = "hierarchical" }
effect = "roi"
trend = { name = "piecewise", changepoints = 2 }
seasonality = 1
likelihood = "student_t"
centring = 0.5

[priors]
alpha = "Beta(2, 6)"
"half_saturation[search]" = "LogNormal(0.1, 0.3)"

[lift_tests]
file = "lifts.csv"

[sampling]
sampler = "numpyro-nuts"
chains = 2
warmup = 30
draws = 40
seed = 7
target_accept = 0.9
max_tree_depth = 8
precision = "float64"
groups = ["log_likelihood"]
"""

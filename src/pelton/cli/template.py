"""The text of a config: every option of `pelton.models.media_config` explained, with a table's guesses filled in."""

import json
import re
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pelton.cli.guess import Guess, GuessedChannel
from pelton.report.wording import visible

WIDTH = 100
NEEDED = "FILL IN"
# A week's media act in as many weeks where nothing tells more; days and months in as many of theirs.
WINDOWS = {"day": 28, "week": 12, "month": 4}


@dataclass(frozen=True)
class Span:
    """What the panel says of the calendar.

    Attributes:
        period: day, week or month.
        shortest, longest: periods of the geos with the fewest and the most.
        years: of the longest.
        words: the table's size, for a reader.
    """

    period: str
    shortest: int
    longest: int
    years: float
    words: str


def template(data: str, out: str, kind: str, guess: Guess, span: Span | None, priors: Mapping[str, str]) -> str:
    """The config of a table.

    Args:
        data, out: names of the table's file and of the config's.
        kind: media_mix or country_mix.
        guess: of the columns.
        span: of the calendar, where the panel could be read.
        priors: those that the model has as it stands, by name.
    """
    model = kind.replace("_", "-")
    head = [
        f"# A {model.replace('-', ' ')} of {visible(data)}. To fit it:",
        "#",
        f"#     pelton fit {visible(data)} --model {model} --config {visible(out)}",
        "#",
        *_comment(
            "The columns below were guessed from their names and values: read them before you trust a result. A line "
            "that begins with # is an explanation, an example, or an option with its default value."
        ),
    ]
    if span is not None:
        head += ["#", *_comment(f"The table has {span.words}.")]
    parts = [head, _data(guess, kind), _left_out(guess)]
    if kind == "media_mix":
        parts += [_channel_options(span), *(_channel(one, span) for one in guess.channels), _model(span)]
        parts += [_priors(priors), _LIFT_TESTS]
    else:
        parts += [_COUNTRY_CHANNELS, *(_columns(one) for one in guess.channels), _COUNTRY_MODEL]
    if not guess.channels:
        parts.insert(
            4,
            [*_comment("No column looks like media. Name each channel so:"), "# [channels.tv]", '# media = "tv_spend"'],
        )
    parts.append(_sampling(kind))
    return "\n".join("\n".join(part) + "\n" for part in parts if part)


def string(text: str) -> str:
    """Text as TOML writes it.

    >>> string('5" "x"')
    '"5\\\\" \\\\"x\\\\""'
    """
    # JSON's escapes are among TOML's; TOML escapes one more control character.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else string(name)


def _strings(names: Iterable[str]) -> str:
    line = f"[{', '.join(map(string, names))}]"
    return line if len(line) <= WIDTH - 20 else "[\n" + "".join(f"    {string(name)},\n" for name in names) + "]"


def _comment(text: str, indent: str = "") -> list[str]:
    first = f"# {indent}"
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=first, break_on_hyphens=False)


def _options(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Names and what they mean, in two columns."""
    lines: list[str] = []
    for name, meaning in rows:
        start = f"#   {name:<19} "
        lines += textwrap.wrap(meaning, WIDTH, initial_indent=start, subsequent_indent="#" + " " * (len(start) - 1))
    return lines


def _column(key: str, name: str | None, example: str, needed: bool = False) -> str:
    if name is not None:
        return f"{key} = {string(name)}"
    return f"{key} = {string(NEEDED)}" if needed else f"# {key} = {string(example)}"


def _data(guess: Guess, kind: str) -> list[str]:
    lines = [
        "[data]",
        *_comment("The column of dates: days, weeks, or months dated on their first or last day."),
        _column("time", guess.time, "", needed=True),
        "",
        *_comment("The column of geos: countries, regions, stores. Leave it out where the table has one geo."),
        _column("geo", guess.geo, "country"),
        "",
        *_comment("The column of what the media are to explain."),
        _column("target", guess.target, "", needed=True),
        "",
    ]
    if kind == "media_mix":
        lines += [
            *_comment(
                "Columns of numbers that move the target beside the media: price, distribution, weather. Leave out "
                "what the media themselves move, such as site visits: it would take the credit for them."
            ),
            f"controls = {_strings(guess.controls)}",
            "",
            *_comment("Columns that are 0 on ordinary dates: holidays, promotions."),
            f"events = {_strings(guess.events)}",
            "",
            *_comment("The column of each geo's population, where media are to be compared by head."),
            _column("population", guess.population, "population"),
            "",
        ]
    return [
        *lines,
        *_comment("What to do about dates that a geo lacks and about dates without a target:"),
        *_options(
            [
                ('"error"', "name them and stop"),
                ('"impute-zero-spend"', "add the dates, with media 0, controls at the geo's mean and no target"),
                ('"mask-target"', "leave dates without a target out of the likelihood"),
            ]
        ),
        *_comment("or both of the last two, in a list."),
        '# missing = "error"',
        "",
        *_comment("D, W-MON to W-SUN, MS or ME; the dates tell unless it is given."),
        '# frequency = "W-MON"',
    ]


def _left_out(guess: Guess) -> list[str]:
    if not guess.left_out:
        return []
    lines = ["# Columns left out:"]
    for name, reason in guess.left_out.items():
        lines += textwrap.wrap(
            f"{visible(name) or '(no name)'}: {visible(reason)}",
            WIDTH,
            initial_indent="#   ",
            subsequent_indent="#     ",
        )
    return lines


def _channel_options(span: Span | None) -> list[str]:
    period = "week" if span is None else span.period
    lines = [
        *_comment("One table a channel, [channels.NAME], with the name that results will have. Its keys:"),
        *_options(
            [
                ("media", "the column that drives the model: impressions, clicks or money (default: NAME)"),
                ("spend", "the column of money, where that is another one: returns are per unit of it"),
                (
                    "kind",
                    "search, social, display, video, audio, out_of_home or print: sets the window and the priors of a "
                    "geometric adstock, and the priors of a hill saturation, for weekly data",
                ),
                (
                    "adstock",
                    "how the effect spreads over time: geometric (default; falls from the start), delayed (peaks "
                    "later), binomial, weibull_pdf, weibull_cdf",
                ),
                (
                    "l_max",
                    f"{period}s in which a {period}'s media act, their own included (default: the kind's, or 12); a "
                    'geometric one may be "endless"',
                ),
                ("normalize", "whether the adstock's weights sum to 1 (default: true)"),
                (
                    "saturation",
                    "how the response flattens: hill (default), exponential, logistic, michaelis_menten, tanh, root",
                ),
            ]
        ),
    ]
    if span is not None and span.period != "week":
        lines += _comment(f"No kind is set below, since the table has {span.period}s.")
    return lines


def _columns(channel: GuessedChannel) -> list[str]:
    lines = [f"[channels.{_key(channel.name)}]", f"media = {string(channel.media)}"]
    return lines if channel.spend is None else [*lines, f"spend = {string(channel.spend)}"]


def _channel(channel: GuessedChannel, span: Span | None) -> list[str]:
    from pelton.models.adstock import KINDS

    period = "week" if span is None else span.period
    weekly = period == "week"
    kind = channel.kind if weekly else None
    window = KINDS[kind].l_max if kind is not None else WINDOWS[period]
    shortest = window if span is None else span.shortest
    short = shortest < window
    lines = _columns(channel)
    if weekly:
        lines.append(f"kind = {string(kind)}" if kind is not None else '# kind = "social", "search", ...')
    lines.append('# adstock = "geometric"')
    if short:
        lines += _comment(f"The shortest geo has no more {period}s:")
    given = short or not weekly
    lines += [f"{'' if given else '# '}l_max = {min(window, shortest)}", '# saturation = "hill"']
    return lines


def _model(span: Span | None) -> list[str]:
    year = span is not None and span.years >= 1
    calendar = "The longest geo has a year or more." if year else "No geo has a whole year to learn one from."
    return [
        "[model]",
        'type = "media_mix"',
        "",
        *_comment("How geos share what they teach:"),
        *_options(
            [
                ('"hierarchical"', "each geo has values of its own, drawn towards those of all"),
                ('"pooled"', "all geos have the same"),
                ('"unpooled"', "each geo by itself"),
            ]
        ),
        *_comment(
            'or by block: { adstock = "pooled", saturation = "pooled", effect = "hierarchical", baseline = '
            '"hierarchical" }'
        ),
        'pooling = "hierarchical"',
        "",
        *_comment("What carries the prior of a channel's effect:"),
        *_options(
            [
                ('"contribution"', "its share of the mean target where a typical week's media are held"),
                ('"coefficient"', "its share of the mean target at full saturation"),
                ('"roi"', "target per unit of spend, which needs columns of spend"),
            ]
        ),
        'effect = "contribution"',
        "",
        *_comment(
            f'"none", "linear", "piecewise" or "gp" (a smooth curve), or a table such as {{ name = "piecewise", '
            f"changepoints = 8 }}. {calendar}"
        ),
        f"trend = {string('linear' if year else 'none')}",
        "",
        *_comment("How many yearly waves, a sine and a cosine each; 0 is none."),
        f"seasonality = {2 if year else 0}",
        "",
        *_comment('"normal", or "student_t" where some dates are far out.'),
        'likelihood = "normal"',
        "",
        *_comment('Coordinates of the sampler, from 0 (not centred) to 1 (centred); "auto" goes by the data.'),
        '# centring = "auto"',
    ]


def _priors(priors: Mapping[str, str]) -> list[str]:
    return [
        "[priors]",
        *_comment(
            "Every prior of this model as it stands; take the # off a line to change it, with any of NumPyro's "
            "distributions of one number. They speak of media as multiples of a typical week's and of effects as "
            "shares of the geo's mean target. A name with _sd is the spread between geos on the logarithmic (or logit) "
            "scale. NAME stands for all columns, NAME[column] for one."
        ),
        *(f"# {_key(name)} = {string(text)}" for name, text in priors.items()),
    ]


_LIFT_TESTS = [
    *_comment(
        "Experiments that measured a lift: a CSV with one row each and the columns channel, x, delta_x, delta_y, "
        "sigma, and geo unless a test was in all of them. Media went from x to x + delta_x a week, the target moved by "
        "delta_y, with standard error sigma."
    ),
    "# [lift_tests]",
    '# file = "lift_tests.csv"',
]

_COUNTRY_CHANNELS = _comment(
    "One table a channel, [channels.NAME]: media is the column that drives the model, spend that of money where it is "
    "another one."
)

_COUNTRY_MODEL = [
    "[model]",
    *_comment(
        "Geometric carryover over 21 weeks, not normalised, exponential saturation, positive effects; each country and "
        "channel has parameters drawn from a population. Its priors are fixed."
    ),
    'type = "country_mix"',
]


def _sampling(kind: str) -> list[str]:
    return [
        "[sampling]",
        *_comment("What the command line gives instead goes first: --chains, --warmup, --draws, --seed ..."),
        "chains = 4",
        "warmup = 1000",
        # A few of its parameters have a tenth as many effective draws as it has draws.
        f"draws = {1500 if kind == 'country_mix' else 1000}",
        "seed = 0",
        *([] if kind == "country_mix" else ["# target_accept = 0.95", "# max_tree_depth = 10"]),
        *_comment('"float32" or "float64" (default: float64 on a CPU, float32 on a GPU)'),
        '# precision = "float64"',
        *_comment("Further groups of posterior.nc: prior, prior_predictive, posterior_predictive, log_likelihood."),
        '# groups = ["prior"]',
    ]

"""Files given to the command line: each is fitted, or refused on one line without a traceback."""

import io

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.commands import run
from tests.fuzz.tally import examples

RATES = ("--successes", "sales", "--trials", "visits", "--unit", "shop", "--prior", "fixed-beta:2,8")
MEDIA = ("--model", "media-mix", "--config", "mix.toml", "--chains", "1", "--warmup", "2", "--draws", "2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An empty folder to work in, and reports that are not drawn: files are what is tried here."""
    import pelton.report

    path = tmp_path_factory.mktemp("files")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        patch.setenv("COLUMNS", "160")
        patch.setattr(pelton.report, "write_report", lambda tree, out, **rest: [out / "report.html"])
        yield path


def fit(tally, *args):
    """Runs `pelton fit ARGS`."""
    return run(tally, "fit", *args)


def shops(rows=4):
    return pd.DataFrame(
        {"shop": [f"shop {row}" for row in range(rows)], "visits": [90 + row for row in range(rows)], "sales": 7}
    )


TEXT = shops().to_csv(index=False)
ROW = "shop 9,100,7\n"
CONTENTS = {
    "bom": TEXT.encode("utf-8-sig"),
    "two boms": b"\xef\xbb\xbf" + TEXT.encode("utf-8-sig"),
    "utf-16": TEXT.encode("utf-16"),
    "utf-16 without bom": TEXT.encode("utf-16-le"),
    "utf-32": TEXT.encode("utf-32"),
    "latin-1": (TEXT + "Café,100,7\n").encode("latin-1"),
    "nul": (TEXT + "a\0b,100,7\n").encode(),
    "escape in a header": TEXT.replace("shop,", "shop,\x1b[31m\x07,", 1).encode(),
    "empty": b"",
    "blank": b" \n\n \r\n",
    "header alone": b"shop,visits,sales\n",
    "header without line end": b"shop,visits,sales",
    "comments alone": b"# nothing\n# here\n",
    "ragged": (TEXT + "shop 9,100\n").encode(),
    "too many fields": (TEXT + "shop 9,100,7,8,9\n").encode(),
    "semicolons": TEXT.replace(",", ";").encode(),
    "pipes": TEXT.replace(",", "|").encode(),
    "spaces": TEXT.replace(",", " ").encode(),
    "mixed delimiters": (TEXT + ROW.replace(",", ";")).encode(),
    "old mac line ends": TEXT.replace("\n", "\r").encode(),
    "open quote": (TEXT + '"shop 9,100,7\n').encode(),
    "quotes within": (TEXT + 'shop "9" x,100,7\n').encode(),
    "long field": (TEXT + "x" * 200_000 + ",100,7\n").encode(),
    "long name": (TEXT + "x" * 10_000 + ",100,7\n").encode(),
    "long number": (TEXT + "shop 9," + "9" * 10_000 + ",7\n").encode(),
    "huge exponent": (TEXT + "shop 9,1e999999999,7\n").encode(),
    "negative": (TEXT + "shop 9,-5,7\n").encode(),
    "other digits": (TEXT + "shop 9,١٠٠,7\n").encode(),
    "column twice": TEXT.replace("shop,visits", "visits,visits", 1).encode(),
    "line separators": (TEXT + "a\u2028b\u0085c,100,7\n").encode(),
    "many columns": ("shop,visits,sales" + ",x" * 5000 + "\n").encode(),
    "binary": bytes(range(256)),
    "image": b"\x89PNG\r\n\x1a\n" + b"\0" * 64,
    "spreadsheet": b"PK\x03\x04" + b"\0" * 40,
    "gzip": b"\x1f\x8b\x08" + b"\0" * 40,
    "html": b"<!doctype html><html><body>shop,visits,sales</body></html>",
    "json": b'[{"shop": "a", "visits": 10, "sales": 1}]',
    "parquet head": b"PAR1",
    "parquet of noise": b"PAR1" + b"\x15\x04\x15" * 30 + b"PAR1",
}


def _parquet(columns):
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


_WHOLE = {"shop": ["a", "b"], "visits": [90, 80], "sales": [7, 6]}
PARQUETS = {
    "whole": _parquet(_WHOLE),
    "truncated": _parquet(_WHOLE)[:-20],
    "first half": _parquet(_WHOLE)[: len(_parquet(_WHOLE)) // 2],
    "no rows": _parquet({"shop": pa.array([], pa.string()), "visits": pa.array([], "i8"), "sales": pa.array([], "i8")}),
    "no columns": _parquet({}),
    "lists": _parquet({**_WHOLE, "visits": [[90], [80]]}),
    "structs": _parquet({**_WHOLE, "sales": [{"n": 7}, {"n": 6}]}),
    "names are lists": _parquet({**_WHOLE, "shop": [["a"], ["b"]]}),
    "names are structs": _parquet({**_WHOLE, "shop": [{"a": 1}, {"a": 2}]}),
    "names are maps": _parquet({**_WHOLE, "shop": pa.array([[("a", 1)], []], pa.map_(pa.string(), pa.int64()))}),
    "names are bytes": _parquet({**_WHOLE, "shop": [b"\xff", b"\x00"]}),
    "dates": _parquet({**_WHOLE, "visits": pd.to_datetime(["2024-01-01", "2024-01-02"])}),
    "durations": _parquet({**_WHOLE, "visits": pa.array([90, 80], pa.duration("s"))}),
    "decimals": _parquet({**_WHOLE, "visits": pa.array([90, 80]).cast(pa.decimal128(25, 2))}),
    "blanks": _parquet({**_WHOLE, "visits": pa.array([None, 80])}),
    "nothing": _parquet({**_WHOLE, "visits": pa.nulls(2)}),
    "dictionary": _parquet({**_WHOLE, "shop": pa.array(["a", "b"]).dictionary_encode()}),
    "huge": _parquet({**_WHOLE, "visits": pa.array([2**64 - 1, 80], pa.uint64())}),
    "floats": _parquet({**_WHOLE, "visits": [90.0, float("inf")]}),
}


@pytest.mark.parametrize("content", [*CONTENTS, *PARQUETS])
def test_files_made_by_hand(tally, folder, content):
    """Damaged and odd CSV and Parquet files given to `pelton fit`."""
    found = PARQUETS.get(content)
    name = "data.csv" if found is None else "data.parquet"
    (folder / name).write_bytes(CONTENTS[content] if found is None else found)
    fit(tally, name, *RATES)


@pytest.mark.parametrize(
    "name", [".", "missing.csv", "folder.csv", "a\0b.csv", "x" * 5000 + ".csv", "", "\x1b[31m.csv"]
)
def test_files_that_are_none(tally, folder, name):
    """Names of files that are none given to `pelton fit`."""
    (folder / "folder.csv").mkdir(exist_ok=True)
    assert fit(tally, name, *RATES).exit_code == 2


@st.composite
def spoilt(draw, whole):
    """A file with bytes exchanged, cut out or put in."""
    content = whole
    for _ in range(draw(st.integers(1, 3))):
        at, cut = draw(st.integers(0, len(content))), draw(st.integers(0, 12))
        put = draw(
            st.one_of(st.binary(max_size=6), st.sampled_from([b",", b'"', b"\n", b"\r", b"#", b"-", b"1e9", b"\t"]))
        )
        content = content[:at] + put + content[at + cut :]
    return content


@examples(120)
@given(content=st.one_of(spoilt(TEXT.encode()), spoilt(PARQUETS["whole"]), st.binary(max_size=80)))
def test_spoilt_tables_of_counts(tally, folder, content):
    """Spoilt files of counts given to `pelton fit`."""
    (folder / "data.csv").write_bytes(content)
    fit(tally, "data.csv", *RATES)


def _sales():
    source, weeks = np.random.default_rng(0), 20
    parts = [
        pd.DataFrame(
            {
                "geo": geo,
                "week": pd.date_range("2024-01-01", periods=weeks, freq="7D"),
                "tv": source.gamma(1, 100, weeks).round(1),
                "sales": source.normal(500, 30, weeks).round(1),
            }
        )
        for geo in ("AT", "CH")
    ]
    return pd.concat(parts).to_csv(index=False)


MIX = '[data]\ntime = "week"\ngeo = "geo"\ntarget = "sales"\n[channels.tv]\nl_max = 3\n[sampling]\nseed = 3\n'


@examples(60)
@given(table=st.one_of(st.just(_sales().encode()), spoilt(_sales().encode())), config=spoilt(MIX.encode()))
def test_spoilt_media_mixes(tally, folder, table, config):
    """Spoilt panels and configs given to `pelton fit --model media-mix`."""
    import pelton.cli.draws
    from pelton.engine.errors import ModelError

    (folder / "data.csv").write_bytes(table)
    (folder / "mix.toml").write_bytes(config)
    with pytest.MonkeyPatch.context() as patch:
        # What comes after is sampling, which the properties of models try.
        def reached(model, *args, **settings):
            raise ModelError("the model was built, and this is where sampling would begin")

        patch.setattr(pelton.cli.draws, "drawn", reached)
        result = fit(tally, "data.csv", *MEDIA)
    if "sampling would begin" in result.stderr:
        tally.refused["status 2"] -= 1
        tally.fitted += 1

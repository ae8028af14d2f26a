"""Tables as people write them: separators, quotes, comments, encodings, numbers that are text."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pelton.cli.tables import Columns, read_table
from pelton.engine.errors import DataError, UnknownNameError

COLUMNS = Columns(("visits", "sales"), ("shop",))


@pytest.fixture
def read(tmp_path):
    def read_text(text, name="data.csv", columns=COLUMNS):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_table(str(path), columns)

    return read_text


@pytest.mark.parametrize(
    "text",
    [
        "shop,visits,sales\nA,120,10\nB,80,9\n",
        "\ufeffshop,visits,sales\r\nA,120,10\r\nB,80,9\r\n",
        "shop;visits;sales\nA;120;10\nB;80;9\n",
        '# made by hand\n\n#, with " and ,\nshop, visits, sales\nA, 120, 10\n\nB, 80, 9',
        '"shop","visits","sales"\n"A","120","10"\n"B","80","9"\n',
        "sales,other,shop,visits\n10,x,A,120\n9,y,B,80\n",
        "shop\tvisits\tsales\nA\t120\t10\nB\t80\t9\n",
    ],
)
def test_separators_comments_and_line_ends(read, text):
    frame, notes = read(text)
    assert frame["shop"].tolist() == ["A", "B"]
    assert frame["visits"].tolist() == [120, 80]
    assert frame["sales"].dtype == np.int64
    assert notes == []


def test_names_stay_as_they_stand(read):
    text = 'shop,visits,sales\n007,1,1\n7,1,1\n1e3,1,1\nNA,1,1\ntrue,1,1\n"a ""b"", c",1,1\n"#1",1,1\n'
    frame, _ = read(text)
    assert frame["shop"].tolist() == ["007", "7", "1e3", "NA", "true", 'a "b", c', "#1"]


def test_names_over_lines_keep_what_looks_like_a_comment(read):
    frame, notes = read('shop,visits,sales\n"A\n# not a comment",120,10\nB,80,9\n')
    assert frame["shop"].tolist() == ["A\n# not a comment", "B"]
    assert notes == []


def test_comments_below_the_header_are_told_from_names(read):
    frame, notes = read('shop,visits,sales\nA,120,10\n# closed, "1 May\n# a note\n#summer,80,9\n"#sale",70,8\n')
    assert frame["shop"].tolist() == ["A", "#summer", "#sale"]
    assert len(notes) == 1
    assert "1 of them (first: line 5)" in notes[0]


def test_numbers_and_what_is_none(read):
    values = ["12", "+3", "4.0", "1e3", "", "NA", "inf", "1,234", "12%", "0x10", "1_000", "१२", "None such"]
    rows = "\n".join(f'{i},"{value}",0' for i, value in enumerate(values))
    frame, _ = read(f"shop,visits,sales\n{rows}\n")
    found = frame["visits"].tolist()
    assert found[:4] == [12, 3, 4.0, 1000.0]
    assert np.isnan(found[4])
    assert np.isnan(found[5])
    assert found[6] == np.inf
    assert found[7:] == values[7:]


def test_huge_whole_numbers_are_not_cut(read):
    frame, _ = read("shop,visits,sales\nA,123456789012345678901234567890,1\n")
    assert frame["visits"].iloc[0] == pytest.approx(1.2345678901234568e29)


def test_columns_that_stand_twice(read):
    with pytest.raises(DataError, match="'visits' stands 2 times"):
        read("shop,visits,visits,sales\nA,1,2,3\n")
    with pytest.raises(UnknownNameError, match="did you mean 'shop'"):
        read("shop,visits,sales\nA,1,2\n", columns=Columns(("visits", "sales"), ("shopp",)))


def test_many_rows(tmp_path):
    path = tmp_path / "large.csv"
    path.write_text("shop,visits,sales\n" + "".join(f"s{i},100,7\n" for i in range(200_000)))
    frame, _ = read_table(str(path), COLUMNS)
    assert len(frame) == 200_000


def test_parquet_keeps_names_and_makes_no_column_an_index(tmp_path):
    frame = pd.DataFrame({"shop": ["007", "7"], "visits": [100, 50], "sales": [12, None]})
    # pandas stores 100, 50 as a range, in the file's notes, and 007, 7 as a column.
    for index in ("visits", "shop"):
        frame.astype({"shop": "category"}).set_index(index).to_parquet(tmp_path / "data.parquet")
        read, _ = read_table(str(tmp_path / "data.parquet"), COLUMNS)
        assert read["shop"].tolist() == ["007", "7"]
        assert read["visits"].tolist() == [100, 50]
        assert np.isnan(read["sales"].iloc[1])


def test_examples_are_read_by_name():
    frame, _ = read_table("example:stores", Columns(("conversions", "impressions"), ("store",)))
    assert frame["store"].tolist()[:2] == ["0", "1"]
    assert len(frame) == 40
    assert Path("example:stores").exists() is False

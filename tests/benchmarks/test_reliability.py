"""The page of what was tried: counts are added up and put between their markers."""

from pelton.benchmarks.reliability import PAGE, between, fault_rows, input_rows


def test_inputs_are_added_up():
    rows = [
        {"inputs": "tables", "tried": 5, "fitted": 2, "refused": {"DataError": 3}},
        {"inputs": "tables", "tried": 4, "fitted": 3, "refused": {"ArgumentError": 1}},
        {"inputs": "names", "tried": 1000, "fitted": 1000, "refused": {}},
    ]
    text = input_rows(rows, 2.0)
    assert "| tables | 9 | 5 | 3 DataError, 1 ArgumentError |" in text
    assert "| names | 1,000 | 1,000 | 0 |" in text
    assert "| **All** | **1,009** | **1,005** | **4** |" in text


def test_faults():
    found = {"minutes": 20.5, "kills": 104, "faults by stage": {"warmup": 7}, "failures": [], "versions": "jax=1"}
    text = fault_rows(found)
    for row in ("| minutes | 20.5 |", "| kills | 104 |", "| numbers different | 0 |", "| faults, stage 'warmup' | 7 |"):
        assert row in text


def test_the_page_has_both_places():
    text = PAGE.read_text(encoding="utf-8")
    for name in ("inputs", "faults"):
        new = between(text, name, "other figures")
        assert new.count("other figures") == 1
        assert between(new, name, "other figures") == new

"""The code of the device benchmark, run on the processor at tiny sizes."""

import pytest

from pelton.benchmarks.gpu import measure


@pytest.mark.slow
def test_every_case_is_measured():
    records = measure(tiny=True)
    assert {record["case"] for record in records} == {"stores", "media mix", "chains"}
    for record in records:
        assert record["copy_bytes_per_second"] > 0
        assert record.get("seconds_gradient", 1.0) > 0

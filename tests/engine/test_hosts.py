"""Hosts: what they tell one another, and how each learns that another is gone."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import pelton
from pelton.engine import hosts
from pelton.engine.errors import ArgumentError, DataError, HostError, PeltonError
from pelton.engine.hosts import Hosts
from pelton.models import streamed
from pelton.models.parquet import ParquetUnits
from pelton.models.unit_file import part_name, write_unit_summary


class Service:
    """The key-value store of JAX's distributed runtime, in memory."""

    def __init__(self, count):
        self.values, self.alive, self.changed = {}, set(range(count)), threading.Condition()

    def key_value_set_bytes(self, key, value):
        with self.changed:
            self.values[key] = value
            self.changed.notify_all()

    def blocking_key_value_get_bytes(self, key, milliseconds):
        with self.changed:
            if not self.changed.wait_for(lambda: key in self.values, milliseconds / 1000):
                raise jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED: timed out")
            return self.values[key]

    def key_value_delete(self, key):
        self.values.pop(key)

    def key_value_dir_get_bytes(self, folder):
        return [(key, value) for key, value in self.values.items() if key.startswith(folder)]

    def get_live_nodes(self, numbers):
        return {number: 1 for number in numbers if number in self.alive}


@pytest.fixture
def together(monkeypatch):
    """Runs a function of Hosts on as many threads, and gives what each returned or raised."""
    monkeypatch.setattr(hosts, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(hosts, "PATIENCE", 2)
    monkeypatch.setattr(jax.distributed, "shutdown", lambda: None)

    def run(count, work):
        service = Service(count)

        def one(index):
            try:
                with Hosts(index, count, service) as host:
                    return work(host)
            except PeltonError as error:
                return error
            finally:
                service.alive.discard(index)

        with ThreadPoolExecutor(count) as pool:
            found = list(pool.map(one, range(count)))
        run.left = service.values
        return found

    return run


@pytest.mark.parametrize("size", [0, 3, 2 * hosts._PIECE, 2 * hosts._PIECE + 1])
def test_each_gets_what_every_other_sends(together, size):
    def work(host):
        sent = [bytes([host.index, other]) * size for other in range(host.count)]
        return host.exchange(sent), host.gather(bytes([host.index]) * size), host.first(lambda: b"first" * size)

    for index, (exchanged, gathered, first) in enumerate(together(3, work)):
        assert exchanged == [bytes([other, index]) * size for other in range(3)]
        assert gathered == [bytes([other]) * size for other in range(3)]
        assert first == b"first" * size
    assert not together.left


def test_an_error_of_one_ends_all(together):
    def work(host):
        if host.index == 1:
            raise DataError("row 3 is bad")
        host.gather(b"")

    first, second, third = together(3, work)
    assert isinstance(second, DataError)
    for other in (first, third):
        assert isinstance(other, HostError)
        assert str(other) == "process 1 of 3 stopped: row 3 is bad"


def test_one_that_dies_is_noticed_while_it_is_awaited(together):
    def work(host):
        if host.index == 2:
            host._client.alive.discard(2)
            # As after a kill: it says nothing more.
            host._tell = lambda *_: None
            raise HostError("killed")
        host.gather(b"")

    first, second, _ = together(3, work)
    for other in (first, second):
        assert isinstance(other, HostError)
        assert str(other).startswith("process 2 of 3 is gone (no sign of life for 2 s)")
        assert "--resume" in str(other)


def test_one_that_dies_is_noticed_during_a_work_of_ones_own(together):
    def work(host):
        if host.index == 1:
            host._client.alive.discard(1)
            host._tell = lambda *_: None
            raise HostError("killed")
        while True:
            time.sleep(0.02)
            host.look()

    assert "process 1 of 2 is gone" in str(together(2, work)[0])


def test_a_lost_store_is_an_error(together):
    def work(host):
        def lost(*_):
            raise jax.errors.JaxRuntimeError("UNAVAILABLE: Socket closed")

        if host.index == 1:
            host._client.blocking_key_value_get_bytes = lost
        host.gather(b"")

    assert all("process 0 of 2 is gone (UNAVAILABLE: Socket closed)" in str(error) for error in together(2, work))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"count": 0, "index": 0}, "processes is a whole number of at least 1, not 0"),
        ({"count": 2, "index": -1}, "process is a whole number of at least 0, not -1"),
        ({"count": 2, "index": 2}, "process is a whole number below that of processes"),
    ],
)
def test_numbers_out_of_range(asked, said):
    with pytest.raises(ArgumentError, match=said):
        Hosts.join("127.0.0.1:1", **asked)


# Shares of a table.


@pytest.fixture
def stores(tmp_path):
    """Three files of unequal row groups, the middle one empty."""
    folder = tmp_path / "stores"
    folder.mkdir()
    for number, rows in enumerate((210, 0, 130)):
        table = pelton.simulate_stores(max(rows, 1), seed=number).head(rows)
        table["store"] = pd.Series([f"{number}-{row}" for row in range(rows)], dtype="str")
        table.to_parquet(folder / f"{number}.parquet", row_group_size=45)
    return folder


COLUMNS = {"successes": "conversions", "trials": "impressions", "unit": "store"}


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_shares_are_the_whole_in_its_order(stores, count):
    whole = ParquetUnits.of(stores, **COLUMNS, batch_rows=20)
    names = [name for batch in whole.batches() for name in batch.names.to_pylist()]
    shares = [whole.share(number, count) for number in range(count)]
    found = [[name for batch in share.batches() for name in batch.names.to_pylist()] for share in shares]
    assert [name for share in found for name in share] == names
    assert [share.length for share in shares] == [len(share) for share in found]
    assert min(map(len, found)) >= 30
    rows = [batch.first + at for share in shares for batch in share.batches() for at in range(len(batch.trials))]
    assert rows == [*range(210), *range(130)]


def test_more_processes_than_row_groups(stores):
    with pytest.raises(ArgumentError, match="9 row groups cannot be shared by 9 processes so"):
        ParquetUnits.of(stores, **COLUMNS).share(0, 9)


@pytest.mark.parametrize("most_pairs", [streamed.MOST_PAIRS, 50])
def test_hosts_have_the_model_and_write_the_rates_of_one_process(together, stores, tmp_path, monkeypatch, most_pairs):
    """Also where pairs of counts are too many to hold, and thresholds come from cells."""
    monkeypatch.setattr(streamed, "MOST_PAIRS", most_pairs)
    alone = pelton.PartialPooling.from_parquet(stores, **COLUMNS, batch_rows=30)
    assert (alone.pairs is None) == (most_pairs == 50)
    tree = pelton.sample(alone, chains=2, draws=200)
    # Every draw is used of so few units, of which some do.
    tree["posterior"] = tree["posterior"].to_dataset().isel(draw=slice(0, None, 20))
    write_unit_summary(tree, alone, tmp_path / "alone.parquet", top=20, threshold=0.3)
    whole = pd.read_parquet(tmp_path / "alone.parquet")

    def work(host):
        model = pelton.PartialPooling.from_parquet(stores, **COLUMNS, batch_rows=30, hosts=host)
        write_unit_summary(tree, model, tmp_path / "units", top=20, threshold=0.3)
        return model

    for _ in range(2):
        models = together(3, work)
        for model in models:
            assert not isinstance(model, Exception), model
            for one, other in ((model.successes, alone.successes), (model.trials, alone.trials)):
                assert np.array_equal(one.values, other.values)
                assert np.array_equal(one.units, other.units)
            assert repr(model) == repr(alone)
        assert sorted(file.name for file in tmp_path.iterdir()) == ["alone.parquet", "stores", "units"]
        assert sorted(file.name for file in (tmp_path / "units").iterdir()) == [part_name(host) for host in range(3)]
        found = pd.concat([pd.read_parquet(tmp_path / "units" / part_name(host)) for host in range(3)])
        pd.testing.assert_frame_equal(found.reset_index(drop=True), whole, rtol=1e-9)


def test_fewer_hosts_leave_no_old_parts(together, stores, tmp_path):
    tree = pelton.sample(pelton.PartialPooling.from_parquet(stores, **COLUMNS), chains=2, draws=200)

    def work(host):
        write_unit_summary(tree, pelton.PartialPooling.from_parquet(stores, **COLUMNS, hosts=host), tmp_path / "units")

    for count in (3, 2):
        assert together(count, work) == [None] * count
        assert len(list((tmp_path / "units").iterdir())) == count
    (tmp_path / "units" / "mine.txt").write_text("mine")
    assert all("no folder of units that hosts wrote" in str(error) for error in together(2, work))
    assert (tmp_path / "units" / "mine.txt").read_text() == "mine"


def test_a_name_twice_in_two_shares_is_named_by_both(together, stores):
    table = pq.read_table(stores / "2.parquet").to_pandas()
    table.loc[125, "store"] = "0-5"
    table.to_parquet(stores / "2.parquet", row_group_size=45)

    def work(host):
        return pelton.PartialPooling.from_parquet(stores, **COLUMNS, hosts=host)

    for error in together(3, work):
        assert isinstance(error, DataError)
        assert "'0-5' stands in row 6 of" in str(error)
        assert "row 126 of" in str(error)
    unchecked = together(
        2, lambda host: pelton.PartialPooling.from_parquet(stores, **COLUMNS, check_names=False, hosts=host)
    )
    assert all(len(model.source) == 340 for model in unchecked)


def test_units_without_trials_are_told_of_by_all(together, stores):
    table = pq.read_table(stores / "2.parquet").to_pandas()
    table.loc[129, ["conversions", "impressions"]] = 0
    table.to_parquet(stores / "2.parquet", row_group_size=45)
    with pytest.warns(pelton.errors.DataWarning, match="2-129"):
        together(2, lambda host: pelton.PartialPooling.from_parquet(stores, **COLUMNS, hosts=host))

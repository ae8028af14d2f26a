"""A tree on disk in Zarr and ArviZ's layout, whose draws grow while others read it."""

import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import xarray as xr

from pelton.engine.errors import StoreError
from pelton.engine.place import PRIVATE, Place, place

FORMAT = 1
_META = "zarr.json"
# Bytes of the draws that one file of each variable holds together, and draws that it holds at the most.
_BLOCK_BYTES = 8 * 2**20
_BLOCK_DRAWS = 1000


def block_draws(bytes_a_draw: int) -> int:
    """Draws that are written together, so that files are neither many nor large.

    >>> block_draws(16), block_draws(80_000), block_draws(10**9)
    (1000, 104, 1)
    """
    return int(np.clip(_BLOCK_BYTES // max(bytes_a_draw, 1), 1, _BLOCK_DRAWS))


class Store:
    """A tree whose variables over draws grow block by block; everything else in it is there from the beginning.

    Blocks are written first and are nobody's until the root's metadata, in which the metadata of all arrays stand
    (Zarr's consolidated metadata), replace the old ones at once: who opens the tree sees so many whole draws of all
    variables. Each block carries its CRC-32C, the root's metadata their SHA-256.

    Args:
        where: its files.
        template: the tree with no draws: every group, variable and coordinate as they will be.
        block: draws that are written together.
    """

    def __init__(self, where: Place, template: xr.DataTree, block: int):
        from zarr import create_group
        from zarr.storage import MemoryStore

        self.where, self.block = where, block
        self._files: dict[str, Any] = {}
        self._memory = MemoryStore(self._files)
        self._published: dict[str, bytes] = {}
        self._growing: dict[str, dict[str, Any]] = {}
        self._root = create_group(self._memory, zarr_format=3)
        for node in template.children.values():
            self._add(node)
        self._flush(durable=True)

    def _add(self, node: xr.DataTree) -> None:
        """One group: what has no draws through xarray, the rest as arrays that can grow."""
        dataset = node.to_dataset(inherit=False)
        names = [str(name) for name, variable in dataset.variables.items() if "draw" in variable.dims]
        self._to_zarr(dataset.drop_vars(names), str(node.name))
        group = self._root.require_group(str(node.name))
        self._growing[str(node.name)] = {
            name: group.create_array(
                name,
                shape=dataset[name].shape,
                chunks=tuple(
                    self.block if dim == "draw" else max(size, 1)
                    for dim, size in zip(dataset[name].dims, dataset[name].shape, strict=True)
                ),
                dtype=dataset[name].dtype,
                compressors=_compressors(),
                dimension_names=[str(dim) for dim in dataset[name].dims],
                fill_value=np.nan if dataset[name].dtype.kind == "f" else None,
                config={"write_empty_chunks": True},
            )
            for name in names
        }

    def put(self, group: str, values: Mapping[str, Any], start: int, durable: bool) -> None:
        """Draws from the start-th on, of which there are no more after them.

        Args:
            group: the group's name.
            values: of all its variables over draws [chain, draw, ...].
            start: where they begin, a multiple of the block.
            durable: whether to wait until they are on the disk.
        """
        if start % self.block:
            raise ValueError(f"draws are written from a multiple of {self.block} on, not from {start}")
        arrays = self._growing[group]
        count = next(iter(values.values())).shape[1]
        if "draw" in arrays:
            arrays["draw"].resize((start + count,))
            arrays["draw"][start:] = np.arange(start, start + count)
        for name, value in values.items():
            array = arrays[name]
            array.resize((array.shape[0], start + count, *array.shape[2:]))
            if count:
                array[:, start:] = np.asarray(value)
        self._flush(durable)

    def adopt(self, group: str, count: int) -> None:
        """So many draws of a group that were put by an earlier process."""
        for array in self._growing[group].values():
            axis = array.metadata.dimension_names.index("draw")
            array.resize((*array.shape[:axis], count, *array.shape[axis + 1 :]))

    def publish(self, attrs: Mapping[Any, Any]) -> None:
        """Lets readers see what has been put, with these attributes of the tree and of its draws."""
        attrs = plain(attrs) | {"pelton_format": FORMAT}
        for group in ("posterior", "sample_stats"):
            self._root[group].attrs.put(attrs)
        self._root.attrs.put(attrs)
        nodes = {key.removesuffix(f"/{_META}"): self._json(key) for key in sorted(self._files) if key != _META}
        for path, node in nodes.items():
            self._write(f"{path}/{_META}", json.dumps(node).encode())
        root = self._json(_META)
        root["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": nodes}
        root["attributes"]["checksum"] = _checksum(root)
        self._write(_META, json.dumps(root).encode(), durable=True)

    def complete(self, tree: xr.DataTree) -> None:
        """Adds the groups and variables of a tree that are not there yet, and its attributes; forgets what was."""
        for node in tree.children.values():
            dataset = node.to_dataset(inherit=False)
            here = set(self._root.require_group(str(node.name)))
            missing = dataset.drop_vars([name for name in dataset.variables if name in here])
            if missing.variables or not here:
                self._to_zarr(missing, str(node.name))
        self._flush(durable=True)
        self.publish(tree.attrs)
        self.forget()

    def forget(self) -> None:
        """Removes files that the tree no longer has."""
        needed = {_META, *(key for key in self._published)}
        for path, node in self._nodes():
            needed |= set(_blocks(path, node))
        for name in self.where.names():
            if name not in needed and not name.startswith(f"{PRIVATE}/"):
                self.where.delete(name)

    def open(self) -> xr.DataTree:
        """What readers see."""
        return _opened(self.where)

    def verify(self) -> None:
        """Reads every block that has been published.

        Raises:
            StoreError: one is missing or damaged.
        """
        _verify(self.where, _root(self.where))

    def _nodes(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for key in self._files:
            node = self._json(key)
            if node["node_type"] == "array":
                yield key.removesuffix(f"/{_META}"), node

    def _json(self, key: str) -> dict[str, Any]:
        return json.loads(self._files[key].to_bytes())

    def _to_zarr(self, dataset: xr.Dataset, group: str) -> None:
        dataset = dataset.drop_encoding()
        encoding = {name: {"compressors": _compressors()} for name in dataset.variables}
        dataset.to_zarr(
            self._memory,
            group=group,
            mode="a",
            encoding=encoding,
            consolidated=False,
            zarr_format=3,
            write_empty_chunks=True,
        )

    def _flush(self, durable: bool) -> None:
        """Writes all blocks; the metadata stay in memory until they are published."""
        for key in [key for key in self._files if not key.endswith(_META)]:
            self.where.write(key, self._files[key].to_bytes(), durable)
            del self._files[key]

    def _write(self, name: str, data: bytes, durable: bool = False) -> None:
        if self._published.get(name) != data:
            self.where.write(name, data, durable)
            self._published[name] = data


def load(path: str | os.PathLike[str], verify: bool = True) -> xr.DataTree:
    """A stored run, or as much of it as there is; variables are read from the disk when they are used.

    Args:
        path: of the run, as given to `pelton.sample(..., store=path)`, or an fsspec URL.
        verify: whether to read every block and compare it with its checksum first.

    Raises:
        StoreError: there is no run, or some of it is missing or damaged.

    >>> import tempfile
    >>> import pelton
    >>> folder = tempfile.TemporaryDirectory()
    >>> model = pelton.PartialPooling([9, 22, 31], [138, 72, 157])
    >>> tree = pelton.sample(model, draws=500, store=f"{folder.name}/run.zarr")
    >>> pelton.load(f"{folder.name}/run.zarr")["posterior"]["mu"].shape
    (4, 500)
    >>> folder.cleanup()
    """
    where = place(path)
    root = _root(where)
    tree = _opened(where)
    if verify:
        _verify(where, root)
    return tree


def _root(where: Place) -> dict[str, Any]:
    """The root's metadata, compared with their checksum."""
    data = where.read(_META)
    if data is None:
        raise StoreError(f"there is no run in {where.url!r}: it has no {_META}")
    try:
        root = json.loads(data)
        stored = root["attributes"].pop("checksum")
        nodes, version = root["consolidated_metadata"]["metadata"], root["attributes"]["pelton_format"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{where.url!r} is no whole run of pelton: its {_META} cannot be read ({error})") from error
    if stored != _checksum(root):
        raise StoreError(f"the run in {where.url!r} is damaged: the checksum of its {_META} is not what it was")
    if version != FORMAT:
        raise StoreError(f"the run in {where.url!r} has format {version!r}; this version of pelton reads {FORMAT}")
    return nodes


def _checksum(root: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(root, sort_keys=True).encode()).hexdigest()


def _opened(where: Place) -> xr.DataTree:
    try:
        tree = xr.open_datatree(where.url, engine="zarr", chunks=None)
    except (OSError, ValueError, KeyError) as error:
        raise StoreError(f"the run in {where.url!r} cannot be opened: {error}") from error
    tree.attrs.pop("checksum", None)
    return tree


def _verify(where: Place, nodes: Mapping[str, Any]) -> None:
    """Reads every block.

    Raises:
        StoreError: one is missing or damaged.
    """
    import zarr

    names = set(where.names())
    root = zarr.open_group(where.url, mode="r")
    for path, node in nodes.items():
        if node["node_type"] != "array":
            continue
        shape, grid = node["shape"], node["chunk_grid"]["configuration"]["chunk_shape"]
        for key in _blocks(path, node):
            at = [int(part) for part in key.removeprefix(f"{path}/c").split("/") if part]
            where_at = tuple(
                slice(i * size, min((i + 1) * size, whole)) for i, size, whole in zip(at, grid, shape, strict=True)
            )
            if key not in names:
                raise StoreError(f"the run in {where.url!r} is damaged: {key!r} is missing")
            try:
                array: Any = root[path]
                array[where_at]
            # What a decoder makes of damaged bytes is up to the decoder.
            except Exception as error:
                raise StoreError(f"the run in {where.url!r} is damaged: {key!r} cannot be read ({error})") from error


def _blocks(path: str, node: Mapping[str, Any]) -> Iterator[str]:
    """Names of the files of an array's blocks."""
    grid = node["chunk_grid"]["configuration"]["chunk_shape"]
    counts = [range(-(-whole // size)) for whole, size in zip(node["shape"], grid, strict=True)]
    for at in itertools.product(*counts):
        yield "/".join([path, "c", *map(str, at)])


def _compressors() -> tuple[Any, ...]:
    from zarr.codecs import Crc32cCodec, ZstdCodec

    return ZstdCodec(level=1), Crc32cCodec()


def plain(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """Attributes as JSON has them: NumPy's numbers and arrays as Python's.

    >>> plain({"a": np.float64(1.5), "b": np.arange(2), "c": ("x",)})
    {'a': 1.5, 'b': [0, 1], 'c': ['x']}
    """

    def one(value: Any) -> Any:
        if isinstance(value, np.ndarray | np.generic):
            return value.tolist()
        return list(value) if isinstance(value, tuple) else value

    return {str(name): one(value) for name, value in attrs.items()}

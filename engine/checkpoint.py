"""Arrays and settings as bytes that tell whether they are whole; nothing in them is ever executed."""

import hashlib
import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from pelton.engine.errors import StoreError

_MAGIC = b"pelton-1"


def packed(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """A header and named arrays as bytes.

    The format is "pelton-1", the SHA-256 digest of what follows, the length of the header's JSON in eight bytes, the
    JSON, and one array after the other in NumPy's format without pickles.

    >>> header, arrays = unpacked(packed({"step": 3}, {"x": np.arange(2)}), "doctest")
    >>> header["step"], arrays["x"]
    (3, array([0, 1]))
    """
    text = json.dumps({**header, "arrays": list(arrays)}, allow_nan=True).encode()
    body = io.BytesIO()
    body.write(len(text).to_bytes(8, "little"))
    body.write(text)
    for array in arrays.values():
        np.lib.format.write_array(body, np.asarray(array), allow_pickle=False)
    data = body.getvalue()
    return _MAGIC + hashlib.sha256(data).digest() + data


def unpacked(data: bytes, name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What `packed` packed.

    Args:
        data: the bytes.
        name: of the file, for the message.

    Raises:
        StoreError: a byte is missing or not what it was.
    """
    digest, body = data[len(_MAGIC) : len(_MAGIC) + 32], data[len(_MAGIC) + 32 :]
    if data[: len(_MAGIC)] != _MAGIC or hashlib.sha256(body).digest() != digest:
        raise StoreError(f"{name!r} is damaged: its bytes are not those that were written")
    length = int.from_bytes(body[:8], "little")
    header = json.loads(body[8 : 8 + length])
    stream = io.BytesIO(body[8 + length :])
    arrays = {key: np.lib.format.read_array(stream, allow_pickle=False) for key in header.pop("arrays")}
    return header, arrays

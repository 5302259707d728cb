"""Columns of Arrow tables: text, a document a row, or lists of tokens, a document each.

Shape legend: an array [n] holds token ids.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from mixplan.errors import InputError


def held_by(kind: Any) -> Literal["text", "tokens"] | None:
    """What a column of this Arrow type holds; None: neither."""
    from pyarrow import types

    inner = kind.value_type if types.is_dictionary(kind) else kind
    if any(
        test(inner)
        for test in (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
    ):
        return "text"
    lists = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return "tokens" if lists and types.is_integer(kind.value_type) else None


def texts_of(rows: Any) -> Iterator[bytes]:
    """The text of every row of an Arrow array as UTF-8; nothing where it is null."""
    import pyarrow

    for value in rows.cast(pyarrow.large_binary()).to_pylist():
        yield value or b""


def tokens_of(rows: Any, end: int, where: str) -> tuple[np.ndarray, int, int]:
    """The tokens of an Arrow array of lists, each list closed by its end-of-document token.

    Args:
        rows: the array.
        end: the end-of-document token; not doubled where a list has it already.
        where: for messages.

    Returns:
        Ids [n], lists that hold some, and empty or null lists.

    Raises:
        InputError: a list holds null where a token should be.
    """
    import pyarrow.compute as pc

    values = rows.flatten()  # of the lists that are not null
    if values.null_count:
        raise InputError(f"{where} holds null where a token should be")
    ids = values.to_numpy(zero_copy_only=False)
    lengths = pc.fill_null(pc.list_value_length(rows), 0).to_numpy(zero_copy_only=False)
    lengths = lengths[lengths > 0].astype(np.int64)
    if not len(lengths):
        return ids, 0, len(rows)
    stops = np.cumsum(lengths)
    open_ended = stops[ids[stops - 1] != end]
    return np.insert(ids.astype(np.int64), open_ended, end), len(lengths), len(rows) - len(lengths)

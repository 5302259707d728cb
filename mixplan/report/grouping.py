"""Rows that belong together: equal nominal values, combinations of columns, rungs.

Shape legend: n = rows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mixplan.documents.table import Table

Array = NDArray[np.float64]
SAME = 1.05  # frequencies, delays and token counts closer than 5 % are the same nominal value


def groups(values: Array) -> tuple[Array, NDArray[np.int64]]:
    """Nominal values of a column that may carry small realised differences.

    Returns:
        Representatives (geometric means; 0 stays 0), rising, and each value's index among them, shape (n,).
    """
    distinct, inverse = np.unique(values, return_inverse=True)
    label = np.zeros(len(distinct), dtype=np.int64)
    start = 0
    for i in range(1, len(distinct)):
        fresh = distinct[i] > distinct[start] * SAME
        label[i] = label[i - 1] + int(fresh)
        start = i if fresh else start
    with np.errstate(divide="ignore"):
        logs = np.log(distinct)
    means = np.array([np.exp(logs[label == k].mean()) for k in range(label[-1] + 1)])
    alone = np.array(
        [distinct[label == k][0] if (label == k).sum() == 1 else np.nan for k in range(len(means))]
    )
    return np.where(np.isnan(alone), means, alone), label[inverse.ravel()]


def codes(*columns: np.ndarray) -> NDArray[np.int64]:
    """One integer per distinct combination of the columns' values, shape (n,)."""
    code = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        _, index = np.unique(column.astype(str) if column.dtype == object else column, return_inverse=True)
        code = code * (int(index.max()) + 1) + index.ravel()
        code = np.unique(code, return_inverse=True)[1].ravel()
    return code


def rungs_of(table: Table) -> tuple[list[tuple[str, float]], NDArray[np.int64]]:
    """(name, block parameters) of a table's rungs, smallest first; each row's index, shape (n,)."""
    code = codes(table["rung"], table["block_params"])
    first = np.unique(code, return_index=True)[1]
    named = [(str(table["rung"][i]), float(table["block_params"][i])) for i in first]
    order = sorted(range(len(named)), key=lambda i: (named[i][1], named[i][0]))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return [named[i] for i in order], rank[code]

"""How cells were injected, as the tables' column `protocol` says it: departures joined by ", "."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from mixplan.documents.measurements import STANDARD
from mixplan.documents.table import Table


def protocols_of(table: Table) -> np.ndarray:
    """Protocol of every row, shape (n,), dtype object; an empty field or no column means `standard`."""
    if "protocol" not in table:
        return np.full(len(table), STANDARD, dtype=object)
    return np.array([str(value).strip() or STANDARD for value in table["protocol"]], dtype=object)


def departures(protocol: str) -> frozenset[str]:
    """In what a protocol departs from the standard one: "gap 8 steps", "32 unique instances" …"""
    return frozenset(protocol.split(", ")) - {STANDARD}


def common_ground(protocols: Iterable[str]) -> str | None:
    """The protocol that all others only add to; None where there is none."""
    found = sorted(set(protocols))
    return next((one for one in found if all(departures(one) <= departures(other) for other in found)), None)

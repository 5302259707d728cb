"""Which rows a figure may average: cells of one protocol, at the ends of horizons.

Shape legend: n = rows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mixplan.documents.measurements import STANDARD
from mixplan.documents.protocols import common_ground, protocols_of
from mixplan.documents.table import Table
from mixplan.report.grouping import SAME, codes, rungs_of
from mixplan.report.text import listing, plural


def common_rows(table: Table) -> Table | None:
    """Rows injected by the protocol that all others only add to, as the laws use them; None without one."""
    protocol = protocols_of(table)
    base = common_ground(protocol)
    return None if base is None else table.where(protocol == base)


def protocol_notes(learning: Table) -> list[str]:
    """What the figures of skill leave out, and by which protocol the rest was injected."""
    protocol = protocols_of(learning)
    base, found = common_ground(protocol), sorted(set(protocol))
    if base is None:
        return [
            f"The cells were injected by protocols that have no common ground ({listing(found)}): figures of"
            " skill would compare what cannot be compared, and are left out."
        ]
    said = []
    if base != STANDARD:
        said.append(f"All cells depart from the standard protocol: {base}. Every number is for it.")
    if len(found) > 1:
        cells = codes(*(learning[name] for name in ("run_id", "family", "complexity", "task", "frequency")))
        others = listing([one for one in found if one != base])
        count = len(np.unique(cells[protocol != base]))
        said.append(
            f"{plural(count, 'cell')} of {len(np.unique(cells)):,} (counted in every run)"
            f" {'was' if count == 1 else 'were'} injected by other protocols ({others}) and left out of the"
            " figures of skill, features and interference."
        )
    return said


def ended(table: Table) -> NDArray[np.bool_]:
    """Whether a row stands at the end of a horizon, shape (n,).

    That is where `decayed` is 1 (the end of a run or of one of its branches), or the last row of a run that
    says nothing of decays.
    """
    run = codes(table["rung"], table["block_params"], table["run_id"])
    last = np.full(run.max() + 1, -np.inf)
    np.maximum.at(last, run, table["tokens"])
    at_end = table["tokens"] == last[run]
    if "decayed" not in table:
        return np.asarray(at_end)
    said = np.zeros(len(last), dtype=bool)
    said[run[np.isfinite(table["decayed"])]] = True
    return np.where(said[run], table["decayed"] == 1, at_end)


def final_rows(table: Table) -> tuple[Table, int]:
    """Rows at the end of each rung's longest horizon, and how many ends of shorter ones there are.

    Args:
        table: at least one of its rows is at the end of a horizon.
    """
    ends = table.where(ended(table))
    run = codes(ends["rung"], ends["block_params"], ends["run_id"])
    rung = rungs_of(ends)[1]
    tokens = ends["tokens"]
    last_of_run = np.full(run.max() + 1, -np.inf)
    np.maximum.at(last_of_run, run, tokens)
    last_of_rung = np.full(rung.max() + 1, -np.inf)
    np.maximum.at(last_of_rung, rung, tokens)
    final = (last_of_run[run] * SAME >= last_of_rung[rung]) & (tokens == last_of_run[run])
    return ends.where(final), len(np.unique(codes(run, tokens)[~final]))

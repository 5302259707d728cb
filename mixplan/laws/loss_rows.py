"""What the LM-loss law is fitted to: one loss per run and evaluation, with the common data behind it.

Shape legend: n = rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mixplan.documents import Table
from mixplan.errors import InputError
from mixplan.laws.evidence import BoolArray, Evidence, FloatArray, IntArray

MAX_LOSS = 20.0
"""Nats per token. Guessing evenly among e^20 = 485 million tokens has it: no vocabulary is as large."""
SKIPPED_SHARE = 0.2
"""Share of a run at its start whose checkpoints the law does not see."""
MAX_CORRELATION = 0.95
"""Above this correlation of ln N with ln D, final checkpoints cannot tell size from tokens."""


@dataclass(frozen=True)
class LossRows:
    """One row per run and checkpoint; every array has shape (n,)."""

    run: IntArray
    block_params: FloatArray
    tokens: FloatArray
    """Training tokens, of common data and of anything else."""
    loss: FloatArray
    """On held-out common data, nats per token."""
    finished: BoolArray
    common_share: FloatArray
    """Common data's share of the training tokens, in (0, 1]."""
    unique_tokens: float
    """Tokens of common data that there are; a run that draws more repeats some. Infinite where unknown."""

    @property
    def common_tokens(self) -> FloatArray:
        """Tokens of common data seen, repeats included, shape (n,)."""
        return self.common_share * self.tokens

    def where(self, keep: NDArray[np.bool_] | IntArray) -> LossRows:
        """Some rows only, or all in another order."""
        arrays = ("run", "block_params", "tokens", "loss", "finished", "common_share")
        return replace(self, **{name: getattr(self, name)[keep] for name in arrays})


def loss_rows(
    evidence: Evidence, sources: Table | None = None, unique_tokens: float | None = None
) -> LossRows | None:
    """One LM loss per run and step; None when the table has none.

    Args:
        evidence: of the learning table.
        sources: the `sources` table, which says what else than common data was mixed into a run. Runs that
            it does not name read common data only.
        unique_tokens: of common data; None where nobody knows.

    Raises:
        InputError: a run has several different LM losses at one step, losses no token could have, shares
            that contradict each other or leave no common data; all problems at once.
    """
    table = evidence.table
    if "lm_loss" not in table:
        return None
    have = np.isfinite(table["lm_loss"]) & (table["lm_loss"] > 0)
    if not have.any():
        return None
    keys = np.column_stack([evidence.run[have].astype(float), table["step"][have]])
    _, first, group = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    loss = table["lm_loss"][have]
    problems = []
    differing = np.flatnonzero(np.abs(loss - loss[first][group.reshape(-1)]) > 1e-6 * loss)
    if len(differing):
        row = differing[0]
        count = len(np.unique(group.reshape(-1)[differing]))
        problems.append(
            f"learning: lm_loss must be one number per run and step; {count} have several, first run "
            f"{evidence.run_ids[int(keys[row, 0])]!r} at step {keys[row, 1]:g}"
        )
    large = np.flatnonzero(loss >= MAX_LOSS)
    if len(large):
        problems.append(
            f"learning: lm_loss must be in nats per token, below {MAX_LOSS:g}; {len(large)} row(s) are not, "
            f"first run {evidence.run_ids[int(keys[large[0], 0])]!r} with {loss[large[0]]:g}; write means "
            "per token, not sums or perplexities"
        )
    rows = np.flatnonzero(have)[first]
    share, said = _common_shares(evidence, sources, np.unique(evidence.run[rows]))
    problems += said
    if problems:
        raise InputError(problems)
    return LossRows(
        run=evidence.run[rows],
        block_params=table["block_params"][rows],
        tokens=table["tokens"][rows],
        loss=table["lm_loss"][rows],
        finished=evidence.finished[rows],
        common_share=share[evidence.run[rows]],
        unique_tokens=np.inf if unique_tokens is None else float(unique_tokens),
    )


def choose(rows: LossRows) -> tuple[LossRows, bool]:
    """Final checkpoints (then True) if they span sizes and tokens independently, else all late ones."""
    final = rows.where(rows.finished)
    spans = len(np.unique(final.block_params)) >= 2 and len(np.unique(final.common_tokens)) >= 3
    if spans and correlation(final) < MAX_CORRELATION:
        return final, True
    length = np.zeros(int(rows.run.max()) + 1)
    np.maximum.at(length, rows.run, rows.tokens)
    late = rows.where(rows.tokens >= SKIPPED_SHARE * length[rows.run])
    return late, bool(late.finished.all())


def correlation(rows: LossRows) -> float:
    """Of ln N with ln D, without its sign; needs two values of each."""
    return float(abs(np.corrcoef(np.log(rows.block_params), np.log(rows.common_tokens))[0, 1]))


def _common_shares(
    evidence: Evidence, sources: Table | None, asked: IntArray
) -> tuple[FloatArray, list[str]]:
    """Share of common data of every run, and what is wrong with those of the runs asked for."""
    left = np.ones(len(evidence.run_ids))
    if sources is None:
        return left, []
    position = {evidence.run_ids[index]: int(index) for index in asked}
    shares: dict[tuple[int, str], set[float]] = {}
    for run_id, source, share in zip(sources["run_id"], sources["source"], sources["share"], strict=True):
        if str(run_id) in position:
            shares.setdefault((position[str(run_id)], str(source)), set()).add(round(float(share), 9))
    several = [key for key, values in sorted(shares.items()) if len(values) > 1]
    problems = [
        f"sources: a source must have one share in a run; {evidence.run_ids[run]!r} has "
        f"{', '.join(f'{v:g}' for v in sorted(shares[run, source]))} of {source!r}"
        for run, source in several[:1]
    ]
    for (run, _), values in sorted(shares.items()):
        left[run] -= max(values)
    empty = np.flatnonzero(left < 1e-6)
    if len(empty):
        problems.append(
            f"sources: {len(empty)} run(s) with an lm_loss read sources only, first "
            f"{evidence.run_ids[empty[0]]!r}: their shares add up to {1 - left[empty[0]]:g}, which leaves no "
            "common data; empty lm_loss there"
        )
    return left, problems

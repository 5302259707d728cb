"""Which rows of the sources table the law of one source is fitted to, and what rules a fit out.

Used: the ends of horizons (a learning rate before its decay belongs to another curve) of the runs at the
shares that were asked for, the run at share zero, and the run at the source's own saturating share. Left
out: runs that anchor another source, since half of their text is that other one.

Shape legend: n = rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixplan.documents import Table
from mixplan.laws.evidence import FloatArray, IntArray
from mixplan.laws.nested_noise import Levels
from mixplan.laws.source_forms import Centre, Inputs

ZERO = "zero"
SAME_SHARE = 0.1
"""Shares whose logarithms are closer belong together: runs of one share realise it to within a sequence."""
UNIT_TOLERANCE = 0.02
"""How far bytes per token may differ between rows of one source, which are scored on one text."""
MOST_BITS = 16.0
"""Twice what guessing bytes costs: more is no bits per byte of a trained model."""
MIN_SIZES, MIN_SHARES, MIN_RUNS = 2, 3, 6


@dataclass(frozen=True)
class SourceRows:
    """Rows of one source in an order that does not depend on the file's; arrays of shape (n,)."""

    inputs: Inputs
    log_bits: FloatArray
    """ln(bits per byte)."""
    levels: Levels
    seeds: int

    @property
    def centre(self) -> Centre:
        """Geometric middles, of the shares above zero only."""
        at = self.inputs
        return Centre(
            block_params=float(np.exp(np.log(at.block_params).mean())),
            tokens=float(np.exp(np.log(at.tokens).mean())),
            share=float(np.exp(np.log(at.share[at.share > 0]).mean())),
            least_bits=float(np.exp(self.log_bits.min())),
        )

    def where(self, keep: np.ndarray) -> SourceRows:
        """Some rows only, shape (n,) of bool."""
        at = self.inputs
        runs, run = np.unique(self.levels.run[keep], return_inverse=True)
        configuration = np.unique(self.levels.configuration[runs], return_inverse=True)[1]
        return SourceRows(
            Inputs(at.block_params[keep], at.tokens[keep], at.share[keep], at.epochs[keep]),
            self.log_bits[keep],
            Levels(run, configuration),
            self.seeds,
        )


def source_names(sources: Table) -> list[str]:
    """Sorted."""
    return sorted({str(name) for name in sources["source"]})


def contradictions(sources: Table) -> list[str]:
    """Rows of the sources table that cannot all be true, as problems for an InputError."""
    problems = []
    tokens, own, epochs, share = (sources[c] for c in ("tokens", "source_tokens", "source_epochs", "share"))
    checks = (
        (
            (own > 0) & (epochs <= 0),
            "source_tokens were read, but source_epochs is 0; give how often the text was read",
        ),
        (
            (own <= 0) & (epochs > 0),
            "source_epochs is above 0, but no source_tokens were read",
        ),
        (
            own > tokens * (1 + 1e-9),
            "more source_tokens than tokens; both count training tokens, in the same unit",
        ),
        (
            # A share is realised to within a sequence or so: only a small part of few tokens may be far off.
            (np.abs(own - share * tokens) > 0.5 * share * tokens) & (share * tokens > 10_000),
            "source_tokens is not about share × tokens; all of them count single training tokens",
        ),
        (
            ~(sources["bits_per_byte"] > 0),
            "bits_per_byte must be above 0",
        ),
    )
    for wrong, said in checks:
        if wrong.any():
            row = int(np.argmax(wrong))
            problems.append(
                f"sources: {said} ({int(wrong.sum())} rows, first row {row + 1}: run "
                f"{sources['run_id'][row]}, source {sources['source'][row]})"
            )
    return problems


def choose(sources: Table, name: str) -> tuple[SourceRows | None, list[str]]:
    """The rows of one source; None, with the reason, where they support no law."""
    table = sources.where(_used(sources, name))
    about = f"source {name}"
    reason = _unfit(table)
    if reason:
        return None, [f"{about}: {reason}; no law was fitted"]
    bits = table["bits_per_byte"]
    with np.errstate(divide="ignore"):
        log_share = np.log(table["share"])
    keys = np.lexsort((bits, table["tokens"], log_share, table["block_params"]))
    table, log_share = table.where(keys), log_share[keys]
    group = _share_groups(log_share)
    # Names of runs only say which rows are one run; the order of runs comes from what they are.
    run = _first_seen(table["run_id"].astype(str))
    configuration_of_row = np.unique(
        np.column_stack([table["block_params"], group]), axis=0, return_inverse=True
    )[1].reshape(-1)
    first = np.unique(run, return_index=True)[1]
    rows = SourceRows(
        Inputs(table["block_params"], table["tokens"], table["share"], table["source_epochs"]),
        np.log(table["bits_per_byte"]),
        Levels(run, configuration_of_row[first]),
        len(np.unique(table["seed"])),
    )
    return rows, _warnings(rows, table, about)


def _used(sources: Table, name: str) -> np.ndarray:
    mine = sources["source"].astype(str) == name
    if "anchor" in sources:
        mine &= np.isin(sources["anchor"].astype(str), ["", ZERO, name])
    if "decayed" in sources and np.isfinite(sources["decayed"][mine]).any():
        return mine & (sources["decayed"] == 1)
    _, run = np.unique(sources["run_id"].astype(str), return_inverse=True)
    last = np.zeros(int(run.max()) + 1)
    np.maximum.at(last, run, sources["tokens"])
    return mine & (sources["tokens"] == last[run])


def _unfit(table: Table) -> str | None:
    """Why no law can be fitted to these rows."""
    if not len(table):
        return "no row stands at the end of a run (`decayed` is 1 in none)"
    bits = table["bits_per_byte"]
    per_token = table["nats_per_token"] / np.log(2) / bits
    if np.ptp(per_token) > UNIT_TOLERANCE * np.median(per_token):
        return (
            f"nats_per_token and bits_per_byte imply between {per_token.min():.3g} and {per_token.max():.3g} "
            "bytes a token on one and the same text; give all rows in the same unit"
        )
    if bits.max() > MOST_BITS:
        return f"bits_per_byte goes up to {bits.max():.3g}, where guessing costs 8; check the unit"
    log_share = np.log(table["share"][table["share"] > 0])
    shares = len(np.unique(_share_groups(log_share))) + int((table["share"] == 0).any())
    counts = (
        (len(np.unique(table["block_params"])), MIN_SIZES, "size"),
        (shares, MIN_SHARES, "share"),
        (len(set(table["run_id"])), MIN_RUNS, "run"),
    )
    short = [f"{have} {what}(s) of at least {least}" for have, least, what in counts if have < least]
    if short:
        return f"measured at {', '.join(short)} that tell what its share does"
    return _twice(table)


def _twice(table: Table) -> str | None:
    keys = np.column_stack([_first_seen(table["run_id"].astype(str)), table["tokens"]])
    _, times = np.unique(keys, axis=0, return_counts=True)
    if (times > 1).any():
        return f"{int((times > 1).sum())} end(s) of a run stand twice; keep one row each"
    return None


def _warnings(rows: SourceRows, table: Table, about: str) -> list[str]:
    at, found = rows.inputs, []
    if np.allclose(table["bits_per_byte"], table["nats_per_token"] / np.log(2), rtol=1e-9):
        found.append(
            f"{about}: its bits are bits per token, as of a corpus that came as tokens; they hold for this "
            "tokenizer only"
        )
    if not (at.share == 0).any():
        found.append(
            f"{about}: no run at share zero, so what the source is worth at all was not measured; nothing is "
            f"known below its smallest share ({at.share.min():.3g})"
        )
    for values, what in ((at.block_params, "sizes"), (at.tokens, "training lengths")):
        count = len(np.unique(values))
        if count < 3:
            found.append(
                f"{about}: {count} {what} do not determine its exponent, which then rests on a prior around "
                f"0.3; do not extrapolate to other {what}"
            )
    if at.epochs.max() <= 1.0:
        found.append(
            f"{about}: never read more than once, so what repetition costs is imported (R around 15 epochs, "
            "arXiv 2305.16264), not measured"
        )
    twins = np.bincount(rows.levels.configuration)
    if (twins < 2).all():
        found.append(
            f"{about}: one seed, so what seeds differ by cannot be told from where the form does not fit"
        )
    return found


def _share_groups(log_share: FloatArray) -> IntArray:
    """Which share a row belongs to, by gaps between the sorted logarithms; −∞ is a group of its own."""
    order = np.argsort(log_share, kind="stable")
    with np.errstate(invalid="ignore"):
        gaps = np.diff(log_share[order])
    group = np.zeros(len(log_share), dtype=np.int64)
    group[order[1:]] = np.cumsum(gaps > SAME_SHARE)
    return group


def _first_seen(names: np.ndarray) -> IntArray:
    """0, 1, … in the order in which names first appear."""
    _, first, index = np.unique(names, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[index.reshape(-1)]

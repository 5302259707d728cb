"""What the commands show: titles, columns and rows."""

from __future__ import annotations

from collections.abc import Iterable

from mixplan.recipes.building import BuiltSource
from mixplan.recipes.scanning import Scan
from mixplan.recipes.verifying import Verification

Shown = tuple[str, list[str], list[list[object]]]


def build_table(built: Iterable[BuiltSource]) -> Shown:
    """One row a source."""
    columns = ["source", "documents", "bytes", "tokens", "samples", "tokens dropped", "state"]
    rows: list[list[object]] = [
        [
            one.build.name,
            f"{one.build.documents:,}",
            f"{one.build.input_bytes:,}",
            f"{one.build.tokens:,}",
            f"{one.build.samples:,}",
            one.build.dropped_tokens,
            "already there" if one.skipped else "built",
        ]
        for one in built
    ]
    return "MDS shards", columns, rows


def scan_table(found: Scan) -> Shown:
    """One row a source; the plan's own number beside the count."""
    columns = [
        "source",
        "counted from",
        "documents",
        "text bytes",
        "tokens",
        "whole samples",
        "natural share",
        "in the plan",
        "plan − count",
    ]
    rows: list[list[object]] = []
    for one, share in zip(found.sources, found.natural_shares(), strict=True):
        differs = None if one.usable_tokens is None else (one.tokens_available or 0.0) - one.usable_tokens
        form = f"{one.counted_from}: {one.form}" if one.counted_from == "data" else one.counted_from
        rows.append(
            [
                one.name,
                form and f"{form}, {one.files:,} {'folder' if one.form == 'mds' else 'file'}(s)",
                _whole(one.documents),
                _whole(one.text_bytes),
                _whole(one.tokens),
                _whole(one.samples),
                None if share is None else f"{share:.3%}",
                None if one.tokens_available is None else f"{one.tokens_available:,.0f}",
                None if one.tokens_available is None or differs is None else f"{differs:+,.0f}",
            ]
        )
    return f"Tokens available, in samples of {found.sequence_length:,}", columns, rows


def _whole(count: int | None) -> str | None:
    return None if count is None else f"{count:,}"


def verification_tables(found: Verification) -> list[Shown]:
    """Counts against the recipe, evenness and gaps; of each phase and of all together. Nothing when nothing
    was looked at."""
    shown = [
        (f"{name}: {title}", columns, rows)
        for name, phase in found.phases.items()
        for title, columns, rows in verification_tables(phase)
    ]
    if not found.sources:
        return shown
    counts: list[list[object]] = []
    spreads: list[list[object]] = []
    for source in found.sources:
        distinct = source.distinct_samples
        counts.append(
            [
                source.name,
                source.role,
                f"{source.samples_expected:,}",
                f"{source.samples:,}",
                f"{source.tokens:,}",
                f"{source.share:.4%}",
                f"{source.epochs:.3f}",
                None if distinct is None else f"{distinct:,} of {source.samples_available:,}",
                source.most_repeats,
            ]
        )
        if (spread := source.spread) is not None and (met := source.encounters) is not None:
            spreads.append(
                [
                    source.name,
                    f"{spread.cv:.3f}",
                    f"{spread.cv_iid:.3f}",
                    f"{spread.cv_ratio:.2f}",
                    f"{spread.empty_windows} / {met.empty_windows_iid:.1f}",
                    f"{met.median_gap_samples:,.0f} / {met.median_gap_iid_samples:,}",
                    f"{met.longest_gap_samples:,} / {met.longest_gap_iid_samples:,.0f}",
                    f"{met.longest_gap_tokens:,.0f}",
                ]
            )
    title = "Planned" if found.checked == "plan" else "Read"
    columns = ["source", "role", "recipe", "samples", "tokens", "share", "epochs", "distinct", "most repeats"]
    whole = "all phases together: " if found.phases else ""
    shown.append((f"{whole}{title}, against the recipe", columns, counts))
    if spreads:
        columns = ["source", "cv", "random cv", "ratio", "empty windows"]
        columns += ["median gap", "longest gap", "longest, tokens"]
        shown.append(
            ("Share per 1 % window of the run; gaps in samples; / in a random order", columns, spreads)
        )
    return shown


def verification_notes(found: Verification) -> list[str]:
    """What was found of the order and of stopping in the middle, where that was tried."""
    if found.phases:
        return [
            f"{name}: {line}" for name, phase in found.phases.items() for line in verification_notes(phase)
        ]
    lines = []
    if found.order_as_planned:
        lines.append(
            f"{found.ranks} rank(s) with {found.workers} worker(s) read in the order that Streaming plans"
        )
    if (resumed := found.resumption) is not None and resumed.same_order:
        lines.append(
            f"stopped after {resumed.stopped_at_samples:,} samples and resumed: the next "
            f"{resumed.samples:,} of {resumed.samples_left:,} are those of the uninterrupted order"
        )
        if resumed.other_state_refused:
            lines.append("a loader state of another mixture is refused")
    return lines


def said(found: Verification) -> str:
    """The last line when the answer is yes: what was verified, and what not."""
    what = f"{found.samples:,} samples, as the recipe says"
    if found.checked == "weights":
        return "the weights add up; nothing that a trainer reads was looked at"
    if found.checked == "files":
        files = "the token files are those that were emitted"
        if found.shards_hashed < found.shards_checked:
            files = "the token files are there in full size, what is in them was not read"
        return f"the weights are the recipe's and {files}; in which order the trainer reads was not looked at"
    if found.checked == "plan" and found.shards_hashed < found.shards_checked:
        return f"the plan is right: {what}; the shards are there in full size, what is in them was not read"
    return f"verified: {what}"

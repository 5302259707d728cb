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
    """Counts against the recipe, and evenness; nothing when nothing was read."""
    if not found.sources:
        return []
    counts: list[list[object]] = []
    spreads: list[list[object]] = []
    for source in found.sources:
        counts.append(
            [
                source.name,
                source.role,
                f"{source.samples_expected:,}",
                f"{source.samples:,}",
                f"{source.tokens:,}",
                f"{source.share:.4%}",
                f"{source.epochs:.3f}",
                f"{source.distinct_samples:,} of {source.samples_available:,}",
                source.most_repeats,
            ]
        )
        if (spread := source.spread) is not None:
            spreads.append(
                [
                    source.name,
                    f"{spread.mean_share:.4%}",
                    f"{spread.cv:.3f}",
                    f"{spread.cv_iid:.3f}",
                    f"{spread.cv_ratio:.2f}",
                    f"{spread.empty_windows} of {spread.windows}",
                    f"{spread.longest_gap_samples:,}",
                    f"{spread.longest_gap_iid_samples:,.0f}",
                ]
            )
    return [
        (
            "Read, against the recipe",
            ["source", "role", "recipe", "samples", "tokens", "share", "epochs", "distinct", "most repeats"],
            counts,
        ),
        (
            "Share per 1 % window of the run (a random order has ratio 1)",
            ["source", "mean", "cv", "random cv", "ratio", "empty windows", "longest gap", "random gap"],
            spreads,
        ),
    ]

"""What `gaps` shows: the argument as titled tables and the sentences that follow from it."""

from __future__ import annotations

from typing import Any

from mixplan.laws.loss_gaps import Gap, Interval, LossGaps
from mixplan.laws.tables import Shown
from mixplan.units import number

NEVER = "no amount"


def gap_tables(found: LossGaps) -> list[Shown]:
    """Exponents, sizes and pairs; every estimate with its 90 % interval over the law's draws."""
    named = {
        "alpha (size)": found.alpha,
        "beta (tokens)": found.beta,
        "gamma = alpha·beta/(alpha + beta) (compute)": found.gamma,
        "E (nats per token)": found.irreducible_nats,
        "bound on the size ratio (1 + alpha/beta)^(1/alpha)": found.size_ratio_bound,
    }
    return [
        Shown(
            "Loss law on common data: loss = E + A/block_params^alpha + B/tokens^beta",
            ["quantity", "estimate", "90 % low", "90 % high"],
            [[name, *(_plain(value) for value in interval)] for name, interval in named.items()],
        ),
        Shown(
            "Sizes, trained compute-optimally (6·N·D FLOPs) and with unlimited data",
            ["block params", "optimal tokens", "optimal loss", "unlimited data", "only size helps below"],
            [
                [
                    number(size.block_params),
                    _counts(size.optimal_tokens),
                    _nats(size.optimal_loss),
                    _nats(size.unlimited_loss),
                    _counts(size.only_by_size_below),
                ]
                for size in found.sizes
            ],
        ),
        Shown(
            "Gaps in loss between compute-optimal sizes, nats (closable: share of draws in which data can)",
            ["small", "large", "gap", "data closes", "only size", "tokens to match", "closable", ""],
            [_gap_row(gap) for gap in found.gaps],
        ),
    ]


def gap_sentences(found: LossGaps) -> list[str]:
    """The answer in words."""
    estimate, low, high = found.size_ratio_bound
    span = "" if low is None else f" (90 % interval {_ratio(low)} to {_ratio(high)})"
    said = [
        "more data takes a model to the loss of a compute-optimal larger one up to a size ratio of "
        f"{_ratio(estimate)}{span}; beyond that only size does"
    ]
    if any(gap.extrapolated for gap in found.gaps):
        said.append(
            "a pair marked * takes sizes or tokens from outside what was measured, where the power law is "
            "assumed; --json names them"
        )
    return said


def _gap_row(gap: Gap) -> list[Any]:
    share = "–" if gap.closable_share is None else f"{gap.closable_share:.0%}"
    return [
        number(gap.small_block_params),
        number(gap.large_block_params),
        _nats(gap.gap_nats),
        _nats(gap.by_data_nats),
        _nats(gap.by_size_nats),
        _counts(gap.tokens_to_match, NEVER),
        share,
        "*" if gap.extrapolated else "",
    ]


def _counts(interval: Interval, missing: str = "–") -> str:
    estimate, low, high = interval
    shown = missing if estimate is None else number(estimate)
    if low is None and high is None:
        return shown
    return f"{shown} ({_end(low, missing)} … {_end(high, missing)})"


def _end(value: float | None, missing: str) -> str:
    return missing if value is None else number(value)


def _nats(interval: Interval) -> str:
    estimate, low, high = interval
    shown = "–" if estimate is None else f"{estimate:.3f}"
    return shown if low is None or high is None else f"{shown} ({low:.3f} … {high:.3f})"


def _plain(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _ratio(value: float | None) -> str:
    return "any" if value is None else f"{number(value)}×"

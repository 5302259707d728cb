"""The order of samples, against the recipe.

Shape legend: n = samples in order, S = streams, W = windows (100, or n in a shorter run).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mixplan.documents.mixture import Mixture
from mixplan.documents.recipe import Recipe, RecipeSource
from mixplan.documents.suggest import did_you_mean
from mixplan.recipes.encounters import Encounters, encounters
from mixplan.recipes.evenness import Evenness, evenness
from mixplan.recipes.fitting import amount_problems
from mixplan.recipes.streams import STREAMS

# A rare source may vary this many times as much from window to window as in a random order.
UNEVEN_FROM = 1.3
# … and what chance does to few samples is allowed on top: so many standard deviations of the variance.
_CHANCE_DEVIATIONS = 5.0


class Order(Protocol):
    """Samples in the order of training."""

    @property
    def sample_ids(self) -> np.ndarray:
        """int64 [n]; they number the samples of all streams one after another."""

    @property
    def stream(self) -> np.ndarray:
        """Number of the stream that each is from, int [n]."""

    @property
    def offsets(self) -> np.ndarray:
        """First sample id of each stream, int64 [S]."""

    @property
    def available(self) -> np.ndarray:
        """Samples of each stream's shards, int64 [S]."""


@dataclass(frozen=True)
class SourceReading:
    """One source: what the recipe says and what came."""

    name: str
    role: str
    samples_expected: int
    """The recipe's `choose`."""
    samples: int
    tokens_expected: int
    tokens: int
    share: float
    """Fraction of all samples."""
    samples_available: int
    """Samples in its shards."""
    distinct_samples: int | None
    """Different samples among `samples`. Empty for several phases together, as `most_repeats`."""
    epochs: float
    """samples ÷ samples_available."""
    epochs_expected: float
    """The recipe's."""
    most_repeats: int | None
    """How often the most repeated sample came."""
    spread: Evenness | None
    """Empty when nothing came."""
    encounters: Encounters | None = None
    """The same."""


def disagreements(mixture: Mixture, recipe: Recipe) -> list[str]:
    """Where streams.yaml itself is not what the recipe says."""
    problems: list[str] = []
    if mixture.digest() != mixture.fingerprint:
        problems.append(
            f"{STREAMS} was changed after it was emitted: its fingerprint is {mixture.digest()[:12]}…, not "
            f"{mixture.fingerprint[:12]}…; emit again, or set `fingerprint: {mixture.digest()}` if the "
            "change is meant"
        )
    if mixture.sequence_length != recipe.sequence_length:
        problems.append(
            f"{STREAMS} has samples of {mixture.sequence_length} tokens, not {recipe.sequence_length}"
        )
    planned = {source.name: source.choose for source in recipe.sources}
    problems += [
        f"source {name!r} is in {STREAMS} but not in the recipe{did_you_mean(name, planned)}"
        for name in mixture.streams
        if name not in planned
    ]
    for name, choose in planned.items():
        there = mixture.streams[name].choose if name in mixture.streams else 0
        if there != choose:
            problems.append(f"source {name!r}: {STREAMS} takes {there:,} samples, the recipe says {choose:,}")
    return problems


def compare(
    mixture: Mixture,
    recipe: Recipe,
    order: Order,
    padding: int = 0,
    tokens: np.ndarray | None = None,
) -> tuple[list[SourceReading], list[str], list[str]]:
    """An order, per source; what is wrong with the amounts; and which rare sources are uneven.

    Args:
        mixture: what was emitted.
        recipe: what it was emitted from.
        order: what was read, or would be.
        padding: samples that Streaming repeats at the end, so that all ranks get the same number.
        tokens: of each sample, int [n], where they were read; else all have the mixture's length.
    """
    problems: list[str] = []
    uneven: list[str] = []
    sources: list[SourceReading] = []
    stream = order.stream
    number = {name: index for index, name in enumerate(mixture.streams)}
    for source in recipe.sources:
        if source.name not in number:
            continue
        index = number[source.name]
        positions = np.flatnonzero(stream == index)
        read = _reading_of(source, index, positions, order, mixture.sequence_length, tokens)
        sources.append(read)
        place = mixture.streams[source.name].remote or mixture.streams[source.name].local
        problems += [
            f"source {source.name!r}: {problem}"
            for problem in amount_problems(source, read.samples_available, mixture.sequence_length, place)
        ]
        problems += _amounts(read, padding)
        if source.role == "rare" and is_uneven(read.spread, read.samples):
            uneven.append(_bursts(read))
    return sources, problems, uneven


def _reading_of(
    source: RecipeSource,
    index: int,
    positions: np.ndarray,
    order: Order,
    sequence_length: int,
    tokens: np.ndarray | None,
) -> SourceReading:
    samples, available = len(positions), int(order.available[index])
    times = np.bincount(order.sample_ids[positions] - order.offsets[index], minlength=available)
    return SourceReading(
        name=source.name,
        role=source.role,
        samples_expected=source.choose,
        samples=samples,
        tokens_expected=source.tokens,
        tokens=samples * sequence_length if tokens is None else int(tokens[positions].sum()),
        share=samples / max(len(order.stream), 1),
        samples_available=available,
        distinct_samples=int((times > 0).sum()),
        epochs=samples / available,
        epochs_expected=source.epochs,
        most_repeats=int(times.max(initial=0)),
        spread=evenness(order.stream, index) if samples else None,
        encounters=encounters(positions, len(order.stream), sequence_length) if samples else None,
    )


def is_uneven(spread: Evenness | None, samples: int) -> bool:
    """Whether a source's share varies more over windows than independent sampling would make it.

    The ratio of variances has mean 1 in a random order and, counts being nearly Poisson with mean λ = m ÷ W,
    the variance (2 + 1 ÷ λ) ÷ W; with few samples it goes far beyond 1.3² by chance.
    """
    if spread is None:
        return False
    deviation = math.sqrt((2.0 + spread.windows / samples) / spread.windows)
    return spread.cv_ratio**2 > max(UNEVEN_FROM**2, 1.0 + _CHANCE_DEVIATIONS * deviation)


def uneven_by_chance(sources: list[SourceReading]) -> list[str]:
    """Rare sources beyond the promise, of so few samples that a random order may be so."""
    return [
        f"source {read.name!r}: over 1 % windows its share varies {read.spread.cv_ratio:.2f} times as much "
        f"as in a random order; with {read.samples:,} samples that can be chance: another shuffle_seed helps"
        for read in sources
        if read.role == "rare"
        and read.spread is not None
        and read.spread.cv_ratio > UNEVEN_FROM
        and not is_uneven(read.spread, read.samples)
    ]


def _bursts(read: SourceReading) -> str:
    ratio = read.spread.cv_ratio if read.spread else math.nan
    longest = read.encounters.longest_gap_tokens if read.encounters else math.nan
    return (
        f"source {read.name!r} comes in bursts: over 1 % windows its share varies {ratio:.1f} times as much "
        f"as in a random order ({UNEVEN_FROM} is allowed), up to {longest:,.0f} tokens go without it, and "
        "what it teaches may be forgotten in between; emit without --block-samples, build it in more shards, "
        "or add --allow-uneven if that is meant"
    )


def _amounts(read: SourceReading, padding: int) -> list[str]:
    name = f"source {read.name!r}"
    problems: list[str] = []
    off = read.samples - read.samples_expected
    if not 0 <= off <= padding:
        word = "falls short: " if off < 0 else "comes too often: "
        problems.append(
            f"{name} {word}{read.samples:,} samples come, the recipe says {read.samples_expected:,}"
        )
    # each repeated sample may be the same one
    at_most = math.ceil(read.samples_expected / read.samples_available) + max(off, 0)
    distinct, most = read.distinct_samples or 0, read.most_repeats or 0
    if most > at_most or (off >= 0 and distinct < min(read.samples_expected, read.samples_available)):
        problems.append(
            f"{name}: a sample is read {most} times, where {read.epochs:.3g} epochs need {at_most} at most, "
            f"and only {distinct:,} of {read.samples_available:,} are read"
        )
    return problems


def token_problems(records: np.ndarray, order: Order, mixture: Mixture, recipe: Recipe) -> list[str]:
    """What is wrong with the tokens themselves; `records` are RECORD [n] in the order's order."""
    problems: list[str] = []
    for index, name in enumerate(mixture.streams):
        mine = records[order.stream == index]
        if len(mine) == 0:
            continue
        wrong = int((mine["tokens"] != mixture.sequence_length).sum())
        if wrong:
            problems.append(
                f"source {name!r}: {wrong:,} samples do not have {mixture.sequence_length:,} tokens"
            )
        if mine["lowest"].min() < 0 or mine["highest"].max() >= recipe.vocab_size:
            problems.append(
                f"source {name!r} has token ids from {mine['lowest'].min()} to {mine['highest'].max()}, "
                f"outside the recipe's vocabulary of {recipe.vocab_size:,}"
            )
    return problems

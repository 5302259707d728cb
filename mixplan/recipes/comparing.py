"""What was read, against the recipe."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mixplan.documents.mixture import Mixture
from mixplan.documents.recipe import Recipe
from mixplan.documents.suggest import did_you_mean
from mixplan.recipes.evenness import Evenness, evenness
from mixplan.recipes.fitting import amount_problems
from mixplan.recipes.reading import Reading
from mixplan.recipes.streams import STREAMS

# Counts may differ from the recipe by this much: Streaming's own rounding of proportions.
_SAMPLES_TOLERANCE = 1
# Beyond this multiple of the cv of a random order, a source is called uneven.
UNEVEN_FROM = 1.5


@dataclass(frozen=True)
class SourceReading:
    """One source: what the recipe says and what was read."""

    name: str
    role: str
    samples_expected: int
    """The recipe's `choose`."""
    samples: int
    tokens_expected: int
    tokens: int
    share: float
    """Fraction of all samples read."""
    samples_available: int
    """Samples in its shards."""
    distinct_samples: int
    """Different samples read."""
    epochs: float
    """samples ÷ samples_available."""
    epochs_expected: float
    """The recipe's."""
    most_repeats: int
    """How often the most repeated sample was read."""
    spread: Evenness | None
    """Empty when nothing was read."""


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
        if abs(there - choose) > _SAMPLES_TOLERANCE:
            problems.append(f"source {name!r}: {STREAMS} takes {there:,} samples, the recipe says {choose:,}")
    return problems


def compare(
    mixture: Mixture, recipe: Recipe, reading: Reading
) -> tuple[list[SourceReading], list[str], list[str]]:
    """What was read, per source; problems; and warnings of unevenness."""
    problems: list[str] = []
    uneven: list[str] = []
    sources: list[SourceReading] = []
    stream = reading.stream
    number = {name: index for index, name in enumerate(mixture.streams)}
    for source in recipe.sources:
        if source.name not in number:
            continue
        index = number[source.name]
        mine = reading.records[stream == index]
        available = int(reading.available[index])
        times = np.bincount(mine["sample_id"] - reading.offsets[index], minlength=available)
        spread = evenness(stream, index) if len(mine) else None
        read = SourceReading(
            name=source.name,
            role=source.role,
            samples_expected=source.choose,
            samples=len(mine),
            tokens_expected=source.tokens,
            tokens=int(mine["tokens"].sum()),
            share=len(mine) / max(len(stream), 1),
            samples_available=available,
            distinct_samples=int((times > 0).sum()),
            epochs=len(mine) / available,
            epochs_expected=source.epochs,
            most_repeats=int(times.max(initial=0)),
            spread=spread,
        )
        sources.append(read)
        place = mixture.streams[source.name].remote or mixture.streams[source.name].local
        problems += [
            f"source {source.name!r}: {problem}"
            for problem in amount_problems(source, available, mixture.sequence_length, place)
        ]
        problems += _source_problems(read, mine, mixture, recipe)
        if source.role == "rare" and spread is not None and spread.cv_ratio > UNEVEN_FROM:
            uneven.append(
                f"source {source.name!r} comes in bursts: over 1 % windows its share varies "
                f"{spread.cv_ratio:.1f} times as much as in a random order, and what it teaches may be "
                "forgotten in between; emit without --block-samples, or build it in more shards"
            )
    return sources, problems, uneven


def _source_problems(read: SourceReading, records: np.ndarray, mixture: Mixture, recipe: Recipe) -> list[str]:
    name = f"source {read.name!r}"
    problems: list[str] = []
    off = read.samples - read.samples_expected
    if abs(off) > _SAMPLES_TOLERANCE:
        word = "falls short: " if off < 0 else "comes too often: "
        problems.append(
            f"{name} {word}{read.samples:,} samples were read, the recipe says {read.samples_expected:,}"
        )
    if len(records) == 0:
        return problems
    wrong = int((records["tokens"] != mixture.sequence_length).sum())
    if wrong:
        problems.append(f"{name}: {wrong:,} samples do not have {mixture.sequence_length:,} tokens")
    if records["lowest"].min() < 0 or records["highest"].max() >= recipe.vocab_size:
        problems.append(
            f"{name} has token ids from {records['lowest'].min()} to {records['highest'].max()}, outside the "
            f"recipe's vocabulary of {recipe.vocab_size:,}"
        )
    at_most = math.ceil(read.samples_expected / read.samples_available)
    if read.most_repeats > at_most:
        problems.append(
            f"{name}: a sample is read {read.most_repeats} times, where {read.epochs:.3g} epochs need "
            f"{at_most} at most, and only {read.distinct_samples:,} of {read.samples_available:,} are read"
        )
    return problems

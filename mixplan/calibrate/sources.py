"""The user's own sources: read, checked, and how many of their sequences a run may see.

Shape legend: T = sequence length.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mixplan.calibrate.corpus import CorpusTokens, load_corpus
from mixplan.calibrate.corpus_files import split_at
from mixplan.calibrate.encoding import load_tokenizer
from mixplan.calibrate.overlap import shared
from mixplan.calibrate.runs import RunSpec
from mixplan.calibrate.tasks import FAMILIES
from mixplan.documents.calibration_spec import CalibrationSpec, Tokenizer, UserSource
from mixplan.errors import InputError
from mixplan.units import number

ZERO = "zero"
"""Name of the runs that anchor skill 0."""
MOST_SHARED = 0.2
NOTED_SHARED = 0.01
"""Share of a source's text that may also stand in the training part of the base text, and from which
the user is told: licences and the like are everywhere."""


@dataclass(frozen=True)
class Source:
    """One source as tokens, and what is known about it."""

    train: np.ndarray
    """int32."""
    held_out: np.ndarray
    """int32, never trained on."""
    facts: dict[str, Any]
    """sha256, train_tokens, held_out_tokens, held_out_bytes (None: came as tokens of an unknown tokenizer),
    documents."""


def spec_problems(spec: CalibrationSpec) -> list[str]:
    """Names that would be mistaken for something else in the measurements."""
    problems = []
    taken = {grid.family for grid in spec.tasks} | {task.family or task.name for task in spec.user_tasks}
    taken |= {str(family) for family in FAMILIES}
    for source in spec.user_sources:
        family = source.family or source.name
        if family in taken:
            problems.append(
                f"user_sources {source.name}: {family!r} is a task family; give the source another "
                "name or family"
            )
        if source.name == ZERO:
            problems.append(
                f"user_sources {source.name}: {ZERO!r} names the runs without any source; "
                "give the source another name"
            )
        if source.match_repetition is not None and spec.horizons.branches and _several_horizons(spec):
            problems.append(
                f"user_sources {source.name}: match_repetition sub-samples a source to the length of "
                "the run, but with horizons.branches one run serves several lengths; set horizons.branches "
                "to false"
            )
    return problems


def _several_horizons(spec: CalibrationSpec) -> bool:
    return len(spec.horizons.tokens or spec.horizons.tokens_per_20_params) > 1


def read_sources(
    spec: CalibrationSpec, base: Path, corpus: CorpusTokens
) -> tuple[dict[str, Source], list[str]]:
    """Read every source with the calibration's tokenizer.

    Returns:
        The sources by name, and notes for the user.

    Raises:
        InputError: what `load_corpus` says of any of them; text that the base corpus is trained on is held
            out in a source.
    """
    found: dict[str, Source] = {}
    notes: list[str] = []
    problems: list[str] = []
    count_bytes = byte_counter(spec.tokenizer, base)
    for source in spec.user_sources:
        where = f"user_sources {source.name}"
        try:
            tokens = load_corpus(spec.model_copy(update={"corpus": source.data}), base)
        except InputError as error:
            problems += [f"{where} (`corpus` below is its `data`): {problem}" for problem in error.problems]
            continue
        notes += [f"{where}: {note}" for note in tokens.notes]
        both = max(shared(side, corpus.train) for side in (tokens.train, tokens.held_out))
        if both > MOST_SHARED:
            problems.append(
                f"{where}: {both:.0%} of its text also stands in the training part of the corpus "
                f"(at most {MOST_SHARED:.0%}), so that a run without the source would not be without it; "
                "take the source's files out of `corpus`"
            )
        elif both > NOTED_SHARED:
            notes.append(f"{where}: {both:.1%} of its text also stands in the corpus")
        facts = {
            "sha256": tokens.sha256,
            "train_tokens": len(tokens.train),
            "held_out_tokens": len(tokens.held_out),
            "held_out_bytes": count_bytes(tokens.held_out, tokens.end_of_document_id)
            if count_bytes
            else None,
            "documents": tokens.documents,
        }
        if not count_bytes:
            notes.append(
                f"{where}: came as tokens, so its bytes are not known: bits per byte are bits per token"
            )
        found[source.name] = Source(tokens.train, tokens.held_out, facts)
    if problems:
        raise InputError(problems)
    return found, notes


def byte_counter(tokenizer: Tokenizer, base: Path) -> Callable[[np.ndarray, int], int] | None:
    """(tokens, end-of-document id) → UTF-8 bytes of the text that they stand for; None when nobody knows.

    End-of-document tokens stand for no text. A document that was cut inside a character counts up to three
    bytes too many or too few there.
    """
    if tokenizer.kind == "none":
        return None
    if tokenizer.kind == "bytes":
        return lambda tokens, end: int(np.count_nonzero(tokens != end))
    fast = load_tokenizer(base / str(tokenizer.path))

    def count(tokens: np.ndarray, end: int) -> int:
        texts = fast.decode_batch(
            [piece.tolist() for piece in split_at(tokens, end)], skip_special_tokens=False
        )
        return sum(len(text.encode("utf-8")) for text in texts)

    return count


def bits_per_byte(nats_per_token: float, facts: Mapping[str, Any]) -> float:
    """nats per token ÷ ln 2 × held-out tokens ÷ held-out bytes; bits per token where bytes are not known."""
    tokens_per_byte = facts["held_out_tokens"] / facts["held_out_bytes"] if facts["held_out_bytes"] else 1.0
    return nats_per_token / float(np.log(2)) * tokens_per_byte


def sequences_of_run(source: UserSource, run: RunSpec, there: int) -> int:
    """Sequences of a source that a run draws from, of the `there` that the source has.

    match_repetition: (tokens of the run) × source_tokens ÷ run_tokens, so that share × tokens ÷ that many is
    the number of epochs that the planned run will make at the same share (arXiv 2606.07597).
    """
    match = source.match_repetition
    if match is None or run.anchor is not None:
        return there
    return round(run.tokens * match.source_tokens / match.run_tokens / run.sequence_length)


def size_problems(spec: CalibrationSpec, runs: Sequence[RunSpec], facts: Mapping[str, Any]) -> list[str]:
    """Sub-samples that do not exist.

    Args:
        facts: by name of the source, with its train_tokens.
    """
    problems = []
    for source in spec.user_sources:
        match = source.match_repetition
        there = facts[source.name]["train_tokens"] // spec.sequence_length
        for run in runs if match is not None else []:
            share = run.shares.get(source.name)
            if share is None:
                continue
            assert match is not None
            wanted = sequences_of_run(source, run, there)
            planned = share * match.run_tokens / match.source_tokens
            if wanted < 1:
                problems.append(
                    f"user_sources {source.name}: in the {number(run.tokens)} tokens of {run.run_id} "
                    f"match_repetition leaves less than one sequence of {spec.sequence_length} tokens; "
                    "train longer, shorten sequence_length, or leave match_repetition out"
                )
            elif wanted > there:
                got = share * run.tokens / (there * spec.sequence_length)
                problems.append(
                    f"user_sources {source.name}: {run.run_id} needs "
                    f"{number(wanted * spec.sequence_length)} tokens of it to repeat it as often as planned "
                    f"({planned:.3g} epochs at share {share:g}), but there are {number(there)} sequences of "
                    f"{spec.sequence_length} tokens to train on ({got:.3g} epochs); add text, train shorter, "
                    "or leave match_repetition out"
                )
    return list(dict.fromkeys(problems))

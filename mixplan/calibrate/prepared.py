"""The ladder's folder: the specification, the corpus as tokens, and one folder per run.

OUT/ladder.json            specification, vocabulary, corpus facts, versions
OUT/corpus/train.npy       int32 tokens
OUT/corpus/held_out.npy    int32 tokens
OUT/corpus/sources/NAME/   the same of each of the user's own sources
OUT/runs/RUN_ID/           see runs.py
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mixplan.calibrate.checks import check_fit
from mixplan.calibrate.corpus import load_corpus, repetition_note
from mixplan.calibrate.encoding import encoder_for
from mixplan.calibrate.provenance import code_version, tokenizer_sha256, versions
from mixplan.calibrate.runs import RunFolder, RunSpec, plan_runs
from mixplan.calibrate.sources import read_sources, size_problems
from mixplan.calibrate.tasks import Cell, dependence_cells, make_cells, reserved_symbols
from mixplan.calibrate.trackers import check_trackers
from mixplan.documents.atomic import refuse_foreign, write_bytes, write_json, write_text
from mixplan.documents.calibration_spec import CalibrationSpec
from mixplan.errors import InputError

# Written first, so that a folder left half-prepared by a kill is known as one.
_MARK = ".mixplan-ladder"
# What may change between two calls of the same command: these decide which runs there are, or where they run.
_MAY_CHANGE = {"name", "ladder", "horizons", "seeds", "engine", "hardware", "tracking", "learned_skill"}


@dataclass(frozen=True)
class Prepared:
    """A ladder that is ready to run."""

    out: Path
    base: Path
    """Folder of calibration.yaml: user task files and tokenizers are relative to it."""
    spec: CalibrationSpec
    base_vocab: int
    end_of_document_id: int
    facts: dict[str, Any]
    """Provenance: corpus hash and sizes, versions."""

    @property
    def train(self) -> np.ndarray:
        """Training tokens, int32, memory-mapped: all runs of a machine share them."""
        return np.load(self.out / "corpus" / "train.npy", mmap_mode="r")

    @property
    def held_out(self) -> np.ndarray:
        """Held-out tokens, int32, memory-mapped."""
        return np.load(self.out / "corpus" / "held_out.npy", mmap_mode="r")

    def source(self, name: str, side: Literal["train", "held_out"]) -> np.ndarray:
        """Tokens of one of the user's sources, int32, memory-mapped."""
        return np.load(self.out / "corpus" / "sources" / name / f"{side}.npy", mmap_mode="r")

    def encoder(self) -> Callable[[str], list[int]] | None:
        """Text → token ids; None when the corpus came as tokens."""
        return encoder_for(self.spec.tokenizer, self.base)

    def runs(self) -> list[RunSpec]:
        """Every run, most FLOPs first."""
        vocab_size = self.base_vocab + reserved_symbols(self.spec)
        return plan_runs(self.spec, vocab_size, dependence_cells(self.spec))

    def cells(self, run: RunSpec) -> list[Cell]:
        """The cells of a run. Raises InputError where a task cannot be made."""
        return make_cells(
            self.spec, run.seed, run.variant, self.base_vocab, self.base, self.encoder(), run.only_cell
        )

    def folder(self, run: RunSpec) -> RunFolder:
        """The folder of one run."""
        return RunFolder(self.out / "runs" / run.run_id)

    @staticmethod
    def read(out: Path) -> Prepared:
        """Read what `prepare` wrote.

        Raises:
            InputError: no ladder was prepared there.
        """
        path = out / "ladder.json"
        if not path.is_file():
            raise InputError(f"{out}: no ladder here (ladder.json is missing); `mixplan calibrate` makes one")
        data = json.loads(path.read_text(encoding="utf-8"))
        return Prepared(
            out,
            Path(data["base"]),
            CalibrationSpec.model_validate(data["spec"]),
            data["base_vocab"],
            data["end_of_document_id"],
            data["facts"],
        )


def prepare(spec: CalibrationSpec, base: Path, out: Path) -> tuple[Prepared, list[str]]:
    """Check everything that can be checked, turn the corpus into tokens, and lay out the run folders.

    Returns:
        The ladder, and notes for the user (repetition of the corpus, share of injected tokens, …).

    Raises:
        InputError: the output folder holds something else or another calibration; the corpus or a task is
            unusable; the injections do not fit the sequences.
    """
    refuse_foreign(out, ["ladder.json", _MARK], "calibrate")
    check_trackers(spec)
    notes: list[str] = []
    if (out / "ladder.json").is_file():
        before = Prepared.read(out)
        changed = _changed(before.spec, spec)
        if changed:
            raise InputError(
                f"{out} holds a calibration with other settings ({', '.join(changed)}); its runs cannot be "
                "continued with these: give another folder with -o, or restore the settings"
            )
        prepared = Prepared(out, base, spec, before.base_vocab, before.end_of_document_id, before.facts)
        notes += check_fit(prepared)
        problems = size_problems(spec, prepared.runs(), before.facts.get("sources", {}))
        if problems:
            raise InputError(problems)
        notes.append(f"{out}: continuing; the corpus stays as it was prepared")
    else:
        corpus = load_corpus(spec, base)
        notes += corpus.notes
        facts: dict[str, Any] = {
            "corpus_sha256": corpus.sha256,
            "corpus_train_tokens": len(corpus.train),
            "corpus_held_out_tokens": len(corpus.held_out),
            "corpus_documents": corpus.documents,
            "tokenizer": spec.tokenizer.model_dump(mode="json"),
            "tokenizer_sha256": tokenizer_sha256(spec.tokenizer, base),
            "versions": versions(),
            "code": code_version(),
        }
        prepared = Prepared(out, base, spec, corpus.vocab_size, corpus.end_of_document_id, facts)
        notes += check_fit(prepared)
        sources, more = read_sources(spec, base, corpus)
        notes += more
        facts["sources"] = {name: source.facts for name, source in sources.items()}
        problems = size_problems(spec, prepared.runs(), facts["sources"])
        if problems:
            raise InputError(problems)
        write_text(out / _MARK, "A ladder of mixplan calibrate is being made here.\n")
        _write_tokens(out / "corpus" / "train.npy", corpus.train)
        _write_tokens(out / "corpus" / "held_out.npy", corpus.held_out)
        for name, source in sources.items():
            _write_tokens(out / "corpus" / "sources" / name / "train.npy", source.train)
            _write_tokens(out / "corpus" / "sources" / name / "held_out.npy", source.held_out)
    longest = max(run.tokens * (1 - sum(run.shares.values())) for run in prepared.runs())
    note = repetition_note(prepared.facts["corpus_train_tokens"], round(longest))
    notes += [note] if note else []
    notes += _left_over(prepared)
    for run in prepared.runs():
        if not (prepared.folder(run).path / "run.json").is_file():
            prepared.folder(run).create(run)
        elif prepared.folder(run).read() != run:
            raise InputError(
                f"{prepared.folder(run).path} was made for another rung or length; give another folder "
                "with -o"
            )
    write_json(
        out / "ladder.json",
        {
            "spec": spec.model_dump(mode="json"),
            "base": str(base.resolve()),
            "base_vocab": prepared.base_vocab,
            "end_of_document_id": prepared.end_of_document_id,
            "facts": prepared.facts,
        },
    )
    return prepared, notes


def _left_over(prepared: Prepared) -> list[str]:
    """Runs of the folder that the specification no longer asks for: kept, but in no table."""
    wanted = {run.run_id for run in prepared.runs()}
    there = {path.parent.name for path in (prepared.out / "runs").glob("*/run.json")}
    if not there - wanted:
        return []
    return [
        f"{len(there - wanted)} run(s) in {prepared.out} are not part of this calibration any more and stay "
        f"out of its tables: {', '.join(sorted(there - wanted))}"
    ]


def _changed(before: CalibrationSpec, now: CalibrationSpec) -> list[str]:
    a, b = before.model_dump(mode="json"), now.model_dump(mode="json")
    return [key for key in a if key not in _MAY_CHANGE and a[key] != b[key]]


def _write_tokens(path: Path, tokens: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(tokens, dtype=np.int32))
    write_bytes(path, buffer.getvalue())

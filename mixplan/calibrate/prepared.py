"""The ladder's folder: the specification, the corpus as tokens, and one folder per run.

OUT/ladder.json            specification, vocabulary, corpus facts, versions
OUT/corpus/train.npy       int32 tokens
OUT/corpus/held_out.npy    int32 tokens
OUT/runs/RUN_ID/           see runs.py
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mixplan.calibrate.corpus import load_corpus, repetition_note
from mixplan.calibrate.encoding import encoder_for
from mixplan.calibrate.injection import MUCH_INJECTED, injected_share
from mixplan.calibrate.runs import RunFolder, RunSpec, plan_runs
from mixplan.calibrate.tasks import Task, make_cells, make_probe_tasks, reserved_symbols
from mixplan.documents.atomic import refuse_foreign, write_bytes, write_json, write_text
from mixplan.documents.calibration_spec import CalibrationSpec, Retention
from mixplan.errors import InputError

# Sequences are filled by instances of whole tokens, so that not every last token can be used.
_MOST_INJECTED = 0.8
# Written first, so that a folder left half-prepared by a kill is known as one.
_MARK = ".mixplan-ladder"
# What may change between two calls of the same command: these decide which runs there are, or where they run.
_MAY_CHANGE = {"name", "ladder", "horizons", "seeds", "engine", "hardware", "learned_skill"}


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

    def encoder(self) -> Callable[[str], list[int]] | None:
        """Text → token ids; None when the corpus came as tokens."""
        return encoder_for(self.spec.tokenizer, self.base)

    def runs(self) -> list[RunSpec]:
        """Every run, most FLOPs first."""
        return plan_runs(self.spec, self.base_vocab + reserved_symbols(self.spec))

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
        notes.append(f"{out}: continuing; the corpus stays as it was prepared")
    else:
        corpus = load_corpus(spec, base)
        notes += corpus.notes
        facts = {
            "corpus_sha256": corpus.sha256,
            "corpus_train_tokens": len(corpus.train),
            "corpus_held_out_tokens": len(corpus.held_out),
            "corpus_documents": corpus.documents,
            "tokenizer": spec.tokenizer.model_dump(mode="json"),
            "versions": _versions(),
        }
        prepared = Prepared(out, base, spec, corpus.vocab_size, corpus.end_of_document_id, facts)
        notes += check_fit(prepared)
        write_text(out / _MARK, "A ladder of mixplan calibrate is being made here.\n")
        _write_tokens(out / "corpus" / "train.npy", corpus.train)
        _write_tokens(out / "corpus" / "held_out.npy", corpus.held_out)
    longest = max(run.tokens for run in prepared.runs())
    note = repetition_note(prepared.facts["corpus_train_tokens"], longest)
    notes += [note] if note else []
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


def check_fit(prepared: Prepared) -> list[str]:
    """Every instance fits a sequence, every step's injections fit its batch, every cell occurs.

    Returns:
        Notes for the user.

    Raises:
        InputError: with everything that does not fit.
    """
    problems: list[str] = []
    notes: list[str] = []
    spec, probe = prepared.spec, prepared.spec.probes.retention
    injections = make_probe_tasks(spec, spec.seeds[0], prepared.base_vocab, prepared.base)
    if probe is not None and probe.instances < probe.burst_steps:
        problems.append(
            f"probes.retention: {probe.instances} instances cannot be spread over {probe.burst_steps} "
            "steps; give at least one a step"
        )
    cells_of = {
        variant: make_cells(
            spec, spec.seeds[0], variant, prepared.base_vocab, prepared.base, prepared.encoder()
        )
        for variant in {run.variant for run in prepared.runs()}
    }
    for run in prepared.runs():
        if run.seed != spec.seeds[0]:
            continue
        cells = cells_of[run.variant]
        lengths = [max(len(i.document(0)) for i in cell.task.train) for cell in cells]
        for cell, longest in zip(cells, lengths, strict=True):
            if longest > spec.sequence_length:
                problems.append(
                    f"task {cell.task.name}: an instance of {longest} tokens does not fit sequences of "
                    f"{spec.sequence_length}; raise sequence_length or shorten the instances"
                )
            if cell.frequency * run.tokens < 1:
                problems.append(
                    f"task {cell.task.name}: frequency {cell.frequency:g} gives no instance in the "
                    f"{run.tokens} tokens of {run.run_id}; use at least {1 / run.tokens:.3g}"
                )
        share = injected_share(lengths, [cell.frequency for cell in cells])
        burst = _burst_tokens(probe, injections, run.steps) / run.tokens_per_step
        if share + burst > _MOST_INJECTED:
            problems.append(
                f"{run.run_id}: the injections take {share:.0%} of the tokens and the retention burst "
                f"{burst:.0%} of its steps; together at most {_MOST_INJECTED:.0%} fit: lower the "
                "frequencies, inject fewer cells, spread the burst over more steps, or use larger batches"
            )
        elif share > MUCH_INJECTED:
            notes.append(
                f"{run.run_id}: {share:.0%} of the training tokens are injected instances; that is no tail"
            )
    if problems:
        raise InputError(list(dict.fromkeys(problems)))
    return list(dict.fromkeys(notes))


def _burst_tokens(probe: Retention | None, injections: list[list[Task]], steps: int) -> int:
    """Tokens of the retention bursts in the fullest step; bursts of a short run may overlap."""
    if probe is None:
        return 0
    each = probe.instances // probe.burst_steps
    tokens = [
        each * sum(max(len(i.document(0)) for i in task.train) for task in tasks) for tasks in injections
    ]
    firsts = [round(fraction * steps) for fraction in probe.at_fractions]
    return max(
        sum(own for own, first in zip(tokens, firsts, strict=True) if 0 <= step - first < probe.burst_steps)
        for step in firsts
    )


def _changed(before: CalibrationSpec, now: CalibrationSpec) -> list[str]:
    a, b = before.model_dump(mode="json"), now.model_dump(mode="json")
    return [key for key in a if key not in _MAY_CHANGE and a[key] != b[key]]


def _write_tokens(path: Path, tokens: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(tokens, dtype=np.int32))
    write_bytes(path, buffer.getvalue())


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("mixplan", "torch", "transformers", "numpy"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed as a package"
    return found

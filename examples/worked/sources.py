"""The sources of the worked example, as MDS folders of token samples; and the tasks that stand in them.

Common sources are the ladder's own training text, sorted by where it came from, so that the ladder's held-out
text stays unseen. Rare sources are other text with task instances written over it by the code of
`mixplan calibrate`: same families, same reserved symbols, anywhere in a sequence, the training instances of a
task in random order again and again. How often an instance comes is the density in plan.yaml.

Shape legend: L = sequence length, B = sequences a block of injection.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mixplan.calibrate.corpus import CorpusTokens, load_corpus
from mixplan.calibrate.injection import Injector
from mixplan.calibrate.probes import CONTEXT_TOKENS
from mixplan.calibrate.stream import BaseStream
from mixplan.calibrate.tasks import FAMILIES, Task, reserved_symbols
from mixplan.calibrate.tasks.symbols import named_generator
from mixplan.calibrate.vocabulary import BYTES_END_OF_DOCUMENT, BYTES_VOCAB_SIZE
from mixplan.compat import ensure_torchvision_imports
from mixplan.documents import CalibrationSpec, Plan, load
from mixplan.documents.atomic import write_json

LADDER = Path(__file__).resolve().parent.parent / "reference" / "cpu-manuals.yaml"
"""The calibration whose laws are used: corpus, optimisation and vocabulary are taken from it."""
END_OF_DOCUMENT = BYTES_END_OF_DOCUMENT
SEED = 20
"""Of the tasks (which symbol means what) and of where their instances stand."""
# Folder of the assembled corpus, what a file must contain to be taken, and tokens.
RARE: dict[str, tuple[str, str, int]] = {
    "scripture": ("kjv", "", 491_520),
    "proofs": ("formal", "", 327_680),
    "german": ("multilingual", "BEZEICHNUNG\n", 204_800),
    "french": ("multilingual", "NOM\n", 73_728),
}


def ladder() -> CalibrationSpec:
    """The reference ladder's calibration.yaml."""
    return load(LADDER, CalibrationSpec)


def make_tasks(plan: Plan) -> dict[str, Task]:
    """The plan's tasks, each with reserved symbols of its own, in the order of the plan."""
    found: dict[str, Task] = {}
    symbol = BYTES_VOCAB_SIZE
    for task in plan.tasks:
        assert task.family is not None and task.complexity is not None
        family, complexity = FAMILIES[task.family], int(task.complexity)
        symbols = np.arange(symbol, symbol + family.symbols(complexity))
        symbol += len(symbols)
        generator = named_generator(SEED, task.name)
        found[task.name] = family.make(task.name, complexity, symbols, generator)
    return found


def vocabulary_of(spec: CalibrationSpec) -> int:
    """Rows of the ladder's embedding: bytes, end of document, and the symbols that its tasks reserved."""
    return BYTES_VOCAB_SIZE + reserved_symbols(spec)


def write_sources(corpus: Path, folder: Path, plan: Plan) -> None:
    """Write sources/NAME (MDS), held_out.npy, contexts.npz and world.json into the folder, that one last.

    Args:
        corpus: what tools/assemble_corpus.py wrote.
        folder: where the plan's `mds` folders start from.
        plan: densities, sequence length and vocabulary.
    """
    spec = ladder()
    if plan.vocabulary != vocabulary_of(spec):
        raise SystemExit(f"plan.yaml: vocab_size must be {vocabulary_of(spec)}, as the ladder had")
    text = load_corpus(spec, corpus)
    length, end = plan.sequence_length, text.end_of_document_id
    facts: dict[str, Any] = {"corpus_sha256": text.sha256, "sources": {}}
    for name, pieces in sorted(common_pieces(text, corpus, spec).items()):
        tokens = _joined(pieces, end)
        rows = tokens[: len(tokens) // length * length].reshape(-1, length)
        write_mds(folder / "sources" / name, rows)
        facts["sources"][name] = {"tokens": rows.size}
    tasks = make_tasks(plan)
    for name in RARE:
        rows, counts = rare_rows(name, corpus, plan, tasks, end, spec.training.batch_sequences or 1)
        write_mds(folder / "sources" / name, rows)
        facts["sources"][name] = {"tokens": rows.size, "instances": counts}
    np.save(folder / "held_out.npy", text.held_out)
    np.savez(folder / "contexts.npz", **{name: own_contexts(corpus, name) for name in RARE})
    write_json(folder / "world.json", facts)


def common_pieces(text: CorpusTokens, corpus: Path, spec: CalibrationSpec) -> dict[str, list[np.ndarray]]:
    """The ladder's training documents (long ones came cut into pieces) by the folder they came from."""
    stream, end = text.train, text.end_of_document_id
    cuts = np.flatnonzero(stream == end)
    pieces = [piece[piece != end] for piece in np.split(stream, cuts + 1)]
    longest = max(len(piece) for piece in pieces)
    origin: dict[bytes, str] = {}
    for name in spec.corpus.paths:
        for path in sorted((corpus / name).rglob(spec.corpus.pattern)):
            data = path.read_bytes()
            for start in range(0, len(data), longest):
                origin.setdefault(_key(data[start : start + longest]), name)
    found: dict[str, list[np.ndarray]] = {}
    for piece in pieces:
        # The stream's last document is cut off where max_tokens is reached, and has no match.
        source = origin.get(_key(piece.astype(np.uint8).tobytes()))
        if source is not None and len(piece):
            found.setdefault(source, []).append(piece)
    return found


def rare_rows(
    name: str, corpus: Path, plan: Plan, tasks: dict[str, Task], end: int, block: int
) -> tuple[np.ndarray, dict[str, int]]:
    """A rare source with its instances, int32 (samples, L); and how many instances of each task it holds.

    Raises:
        SystemExit: the corpus does not have enough of that text.
    """
    place, mark, tokens = RARE[name]
    length = plan.sequence_length
    documents = (path.read_text(encoding="utf-8") for path in sorted((corpus / place).glob("*.txt")))
    chosen = (np.frombuffer(one.encode(), np.uint8) for one in documents if mark in one[:2000])
    stream = _joined(_first(chosen, tokens), end)[:tokens]
    if len(stream) < tokens:
        raise SystemExit(f"{corpus / place} holds {len(stream)} tokens for {name}; {tokens} are needed")
    held = {task.name: task.density[name] for task in plan.tasks if name in task.density}
    steps = tokens // (block * length)
    injector = Injector([tasks[one] for one in held], list(held.values()), end, block, length, steps, SEED)
    text = BaseStream(stream, length, SEED)
    rows = np.concatenate([injector.inject(step, text.batch(step, block))[0] for step in range(steps)])
    counts = dict(zip(held, map(int, injector.seen(steps)), strict=True))
    return rows.astype(np.int32), counts


def own_contexts(corpus: Path, name: str, count: int = 64) -> np.ndarray:
    """Pieces of a rare source's text that no sample holds, int64 (count, CONTEXT_TOKENS).

    From the other end of the text than the samples, so that the two do not meet.
    """
    place, mark, tokens = RARE[name]
    documents = (path.read_text(encoding="utf-8") for path in sorted((corpus / place).glob("*.txt"))[::-1])
    chosen = (np.frombuffer(one.encode(), np.uint8) for one in documents if mark in one[:2000])
    text = _joined(_first(chosen, tokens), END_OF_DOCUMENT)
    starts = np.random.default_rng(SEED).integers(0, len(text) - CONTEXT_TOKENS + 1, size=count)
    return np.stack([text[start : start + CONTEXT_TOKENS] for start in starts]).astype(np.int64)


def write_mds(folder: Path, rows: np.ndarray) -> None:
    """Rows int32 (samples, L) as MDS in at least 32 shards, as `mixplan build` writes them."""
    ensure_torchvision_imports()
    from streaming import MDSWriter

    samples, length = rows.shape
    limit = 210 + max(1, samples // 32) * (4 * length + 4)
    columns = {"tokens": f"ndarray:int32:{length}"}
    with MDSWriter(columns=columns, out=str(folder), hashes=["xxh3_64"], size_limit=limit) as writer:
        for row in rows.astype(np.int32):
            writer.write({"tokens": row})


def _first(documents: Iterable[np.ndarray], tokens: int) -> Iterator[np.ndarray]:
    for document in documents:
        if tokens <= 0:
            return
        yield document
        tokens -= len(document) + 1


def _joined(pieces: Iterable[np.ndarray], end: int) -> np.ndarray:
    """Documents, each followed by its end, int32 (tokens,)."""
    return np.concatenate([part for piece in pieces for part in (piece.astype(np.int32), [np.int32(end)])])


def _key(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def realised(folder: Path) -> dict[str, Any]:
    """world.json: tokens of each source and the instances in it."""
    found: dict[str, Any] = json.loads((folder / "world.json").read_text(encoding="utf-8"))
    return found

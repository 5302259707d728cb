"""The base text as tokens: training and held-out streams that hold the same kinds of text.

Shape legend: T = tokens of a stream.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mixplan.calibrate.corpus_files import read_documents
from mixplan.calibrate.vocabulary import Vocabulary, vocabulary
from mixplan.documents.calibration_spec import CalibrationSpec
from mixplan.errors import InputError
from mixplan.units import number

MAX_CHUNK_TOKENS = 65536
_HELD_OUT_CHUNKS = 8
"""Long documents are cut so that the held-out part has at least about this many pieces."""
_SHUFFLE_SEED = 20260528


@dataclass(frozen=True)
class CorpusTokens:
    """A corpus, ready to train on."""

    train: np.ndarray
    """Training tokens, int32, shape (T,)."""
    held_out: np.ndarray
    """Tokens that are never trained on, int32, shape (T,)."""
    vocab_size: int
    """Base vocabulary, end of document included (257 for bytes)."""
    end_of_document_id: int
    sha256: str
    """Of the training stream followed by the held-out stream, as little-endian int32."""
    documents: int
    """Documents read, before long ones were cut."""
    notes: list[str]
    """What the user should know."""
    files: int
    """Files (or folders of shards) read."""


def load_corpus(spec: CalibrationSpec, base: Path) -> CorpusTokens:
    """Read, split and join the corpus; the same files give the same tokens, on any machine.

    A text file is a document; so is a row of text. Token files and rows of tokens are cut into documents at
    end-of-document tokens. Files are read in the order of their names.

    Documents longer than MAX_CHUNK_TOKENS, or than an eighth of the held-out part, are cut into pieces, so
    that a split is possible with a few big files: pieces of one long document may stand on both sides, but no
    piece does, and documents with the same content always stand on the same side.

    Which documents are held out depends on their content alone; both sides are then in a fixed random
    order, so that they hold the same kinds of text throughout. Every document (or piece) is followed by the
    end-of-document token. Training stops at exactly `max_tokens` where that is given, and the held-out part
    is `held_out_fraction` of what is used.

    Args:
        spec: its corpus, tokenizer and sequence_length.
        base: folder of calibration.yaml, which all paths are relative to.

    Raises:
        InputError: everything that is wrong with the paths, the files, the tokenizer and the tokens; or a
            corpus that does not hold one sequence on each side.
    """
    if spec.tokenizer.kind == "none" and spec.corpus.format == "text":
        raise InputError("corpus.format text needs a tokenizer: set tokenizer.kind to bytes or huggingface")
    words = vocabulary(spec.tokenizer, base)
    reading = read_documents(spec, base, words)
    problems = reading.problems + _out_of_vocabulary(reading.documents, words, spec)
    if not problems and not reading.documents:
        problems = [f"the corpus is empty: {reading.files} file(s) under corpus.paths hold no token"]
    if problems:
        raise InputError(problems)

    fraction = spec.corpus.held_out_fraction
    there = sum(len(document) + 1 for document in reading.documents)
    used = (
        there
        if spec.corpus.max_tokens is None
        else min(there, round(spec.corpus.max_tokens / (1 - fraction)))
    )
    held_out_tokens = fraction * used
    longest = int(min(MAX_CHUNK_TOKENS, max(held_out_tokens / _HELD_OUT_CHUNKS, 2 * spec.sequence_length)))
    pieces = [piece for document in reading.documents for piece in _cut(document, longest)]
    held_out, train = _split(pieces, held_out_tokens)
    notes = list(reading.notes)
    cut = sum(len(document) > longest for document in reading.documents)
    if cut:
        notes.append(f"{cut} of {len(reading.documents)} documents were cut into pieces of {longest} tokens")
    streams = (
        _join(train, words.end_of_document_id, spec.corpus.max_tokens),
        _join(held_out, words.end_of_document_id, None),
    )
    _refuse_too_short(streams, spec, there)
    if spec.corpus.max_tokens is not None and len(streams[0]) < spec.corpus.max_tokens:
        notes.append(
            f"corpus.max_tokens is {spec.corpus.max_tokens}, but there are only {len(streams[0])} "
            "training tokens"
        )
    digest = hashlib.sha256()
    for stream in streams:
        digest.update(stream.astype("<i4", copy=False).tobytes())
    return CorpusTokens(
        *streams,
        vocab_size=words.size,
        end_of_document_id=words.end_of_document_id,
        sha256=digest.hexdigest(),
        documents=len(reading.documents),
        notes=notes,
        files=reading.files,
    )


def repetition_note(corpus_tokens: int, wanted_tokens: int) -> str | None:
    """Says how often a run reads the corpus when it is longer than the corpus; None when it is not."""
    if wanted_tokens <= corpus_tokens:
        return None
    return (
        f"the corpus has {number(corpus_tokens)} training tokens and the longest run reads "
        f"{number(wanted_tokens)}: it is repeated {wanted_tokens / corpus_tokens:.2g} times"
    )


def _out_of_vocabulary(
    documents: Sequence[np.ndarray], words: Vocabulary, spec: CalibrationSpec
) -> list[str]:
    low = min((int(document.min()) for document in documents), default=0)
    high = max((int(document.max()) for document in documents), default=0)
    if low >= 0 and high < words.size:
        return []
    rule = f"ids go from 0 to {words.size - 1}, the vocabulary of tokenizer.kind {spec.tokenizer.kind}"
    dtype = f" and corpus.dtype ({spec.corpus.dtype})" if spec.corpus.format in ("npy", "mds") else ""
    return [f"the corpus holds token ids from {low} to {high}, but {rule}; check `tokenizer`{dtype}"]


def _cut(document: np.ndarray, longest: int) -> Iterator[np.ndarray]:
    for start in range(0, len(document), longest):
        yield document[start : start + longest]


def _split(pieces: Sequence[np.ndarray], held_out_tokens: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Held-out and training pieces.

    Pieces are drawn for the held-out side in the order of a hash of their content until there are enough
    tokens: a random choice that does not depend on file names, and that keeps equal pieces together.
    """
    keys = [_key(piece) for piece in pieces]
    chosen: set[bytes] = set()
    tokens = 0
    for index in sorted(range(len(pieces)), key=keys.__getitem__):
        if keys[index] not in chosen and tokens >= held_out_tokens:
            break
        chosen.add(keys[index])
        tokens += len(pieces[index]) + 1
    order = np.random.default_rng(_SHUFFLE_SEED).permutation(len(pieces))
    held_out = [pieces[i] for i in order if keys[i] in chosen]
    return held_out, [pieces[i] for i in order if keys[i] not in chosen]


def _key(piece: np.ndarray) -> bytes:
    # The same text must have the same key whatever integer type a file stores it in.
    return hashlib.blake2b(np.ascontiguousarray(piece, dtype="<i4").tobytes(), digest_size=16).digest()


def _join(pieces: Sequence[np.ndarray], end_of_document_id: int, limit: int | None) -> np.ndarray:
    """Pieces, each followed by the end-of-document token, as int32, cut to `limit` tokens."""
    total = sum(len(piece) + 1 for piece in pieces)
    out = np.empty(total if limit is None else min(total, limit), dtype=np.int32)
    at = 0
    for piece in pieces:
        if at >= len(out):
            break
        stop = min(at + len(piece), len(out))
        out[at:stop] = piece[: stop - at]
        if stop < len(out):
            out[stop] = end_of_document_id
        at = stop + 1
    return out


def _refuse_too_short(streams: tuple[np.ndarray, np.ndarray], spec: CalibrationSpec, there: int) -> None:
    ways = (
        "add text, raise corpus.max_tokens, or shorten sequence_length",
        "add text, raise corpus.held_out_fraction, or shorten sequence_length",
    )
    problems = [
        f"the corpus of {there} tokens leaves {len(stream)} {side} tokens, less than one sequence of "
        f"{spec.sequence_length}; {way}"
        for stream, side, way in zip(streams, ("training", "held-out"), ways, strict=True)
        if len(stream) < spec.sequence_length
    ]
    if problems:
        raise InputError(problems)

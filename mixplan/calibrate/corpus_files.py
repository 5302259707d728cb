"""Readers: what stands under `corpus.paths` becomes documents, each an array of token ids.

Nothing is copied that need not be: .npy documents are slices of a memory map, bytes stay uint8.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mixplan.calibrate.encoding import load_tokenizer
from mixplan.calibrate.vocabulary import Vocabulary
from mixplan.documents.calibration_spec import CalibrationSpec, Corpus
from mixplan.documents.mds_index import INDEX, read_index
from mixplan.documents.suggest import did_you_mean
from mixplan.errors import InputError

_NPY_MAGIC = b"\x93NUMPY"
_SHOWN = 10


@dataclass
class Reading:
    """What the readers found."""

    documents: list[np.ndarray] = field(default_factory=list)
    """Token ids of each document, without its end-of-document token, in file order."""
    files: int = 0
    """Files, or folders of MDS and datasets, that were read."""
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def read_documents(spec: CalibrationSpec, base: Path, vocabulary: Vocabulary) -> Reading:
    """Every document of the corpus, in the order of the sorted file names.

    Problems come back together with what could be read; they are not raised.
    """
    corpus = spec.corpus
    reading = Reading()
    if corpus.format in ("mds", "datasets"):
        for folder in _folders(corpus, base, reading):
            try:
                rows = _mds_rows(folder, corpus) if corpus.format == "mds" else _datasets_rows(folder, corpus)
                _take_rows(rows, spec, base, vocabulary, reading)
                reading.files += 1
            except InputError as error:
                reading.problems += error.problems
        return reading
    files = _files(corpus, base, reading)
    if corpus.format == "npy":
        for path in files:
            try:
                reading.documents += split_at(_token_file(path, corpus.dtype), vocabulary.end_of_document_id)
                reading.files += 1
            except InputError as error:
                reading.problems += error.problems
    else:
        _take_text_files(files, spec, base, reading)
    return reading


def split_at(tokens: np.ndarray, end_of_document_id: int) -> list[np.ndarray]:
    """The pieces between end-of-document tokens; empty ones are dropped."""
    ends = np.flatnonzero(tokens == end_of_document_id)
    starts = np.concatenate([[0], ends + 1])
    stops = np.concatenate([ends, [len(tokens)]])
    return [tokens[a:b] for a, b in zip(starts, stops, strict=True) if b > a]


def _files(corpus: Corpus, base: Path, reading: Reading) -> list[Path]:
    """Files, each once, sorted. In folders hidden files are left out; token files default to *.npy."""
    pattern = "*.npy" if corpus.format == "npy" and corpus.pattern == "*" else corpus.pattern
    found: dict[Path, Path] = {}
    for given in corpus.paths:
        path = base / given
        if path.is_dir():
            inside = [
                file
                for file in path.rglob(pattern)
                if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts)
            ]
            if not inside:
                reading.problems.append(f"corpus.paths: {path} holds no file that matches {pattern!r}")
        elif path.is_file():
            inside = [path]
        elif glob.has_magic(given):
            inside = [Path(file) for file in glob.glob(str(path), recursive=True) if Path(file).is_file()]
            if not inside:
                reading.problems.append(f"corpus.paths: no file matches {given!r} under {base}")
        else:
            inside = []
            reading.problems.append(
                f"corpus.paths: {path} does not exist; paths are relative to calibration.yaml"
            )
        for file in inside:
            found.setdefault(file.resolve(), file)
    return sorted(found.values(), key=lambda file: file.as_posix())


def _folders(corpus: Corpus, base: Path, reading: Reading) -> list[Path]:
    """Folders of MDS shards or of a dataset on disk, each once, sorted."""
    found: set[Path] = set()
    for given in corpus.paths:
        path = base / given
        inside = (
            [Path(match) for match in glob.glob(str(path), recursive=True)]
            if glob.has_magic(given)
            else [path]
        )
        wrong = [folder for folder in inside if not folder.is_dir()]
        reading.problems += [
            f"corpus.paths: {folder} is no folder; format {corpus.format} needs one" for folder in wrong
        ]
        if not inside:
            reading.problems.append(f"corpus.paths: nothing matches {given!r} under {base}")
        found |= {folder for folder in inside if folder.is_dir()}
    return sorted(found)


def _take_text_files(files: Sequence[Path], spec: CalibrationSpec, base: Path, reading: Reading) -> None:
    """Each file is a document: its bytes, or its text through the tokenizer."""
    unreadable: list[str] = []
    texts: list[str] = []
    empty = with_nul = 0
    for path in files:
        try:
            raw = path.read_bytes()
        except OSError as error:
            unreadable.append(f"{path}: cannot be read ({error.strerror})")
            continue
        reading.files += 1
        empty += not raw
        with_nul += b"\0" in raw
        if not raw:
            continue
        if spec.tokenizer.kind == "bytes":
            reading.documents.append(np.frombuffer(raw, dtype=np.uint8))
            continue
        try:
            texts.append(raw.decode("utf-8"))
        except UnicodeDecodeError as error:
            unreadable.append(
                f"{path}: not UTF-8 text (byte {error.start}); a tokenizer needs text: convert the file or "
                "leave it out"
            )
    if texts and not unreadable:
        reading.documents += [document for document in _encode(texts, spec, base) if len(document)]
    reading.problems += _first(unreadable, "files")
    if empty:
        reading.notes.append(f"{empty} of {len(files)} files are empty and were left out")
    if with_nul:
        reading.notes.append(
            f"{with_nul} of {len(files)} files hold NUL bytes: are these text? see corpus.pattern"
        )


def _encode(texts: Iterable[str], spec: CalibrationSpec, base: Path) -> list[np.ndarray]:
    if spec.tokenizer.kind == "bytes":
        return [np.frombuffer(text.encode("utf-8"), dtype=np.uint8) for text in texts]
    tokenizer = load_tokenizer(base / str(spec.tokenizer.path))
    held = list(texts)
    out: list[np.ndarray] = []
    for first in range(0, len(held), 256):
        batch = tokenizer.encode_batch_fast(held[first : first + 256], add_special_tokens=False)
        out += [np.array(encoding.ids, dtype=np.int32) for encoding in batch]
    return out


def _token_file(path: Path, dtype: str) -> np.ndarray:
    """One .npy file as a flat memory map: with a NumPy header, or header-less as OLMo writes them."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            magic = file.read(len(_NPY_MAGIC))
        if magic == _NPY_MAGIC:
            tokens = np.load(path, mmap_mode="r", allow_pickle=False)
        elif size % np.dtype(dtype).itemsize:
            raise InputError(
                f"{path}: {size} bytes are not a whole number of {dtype} tokens; set corpus.dtype to the "
                "type that the file was written with"
            )
        else:
            tokens = np.memmap(path, dtype=dtype, mode="r") if size else np.empty(0, dtype)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as an array ({error})") from None
    if tokens.dtype.kind not in "iu":
        raise InputError(f"{path}: holds {tokens.dtype} values; token ids are integers")
    return tokens.reshape(-1)


def _take_rows(
    rows: Iterator[Any], spec: CalibrationSpec, base: Path, vocabulary: Vocabulary, reading: Reading
) -> None:
    """Rows of text are documents; rows of tokens are cut at end-of-document tokens."""
    texts: list[str] = []
    for row in rows:
        if isinstance(row, str):
            texts.append(row)
            continue
        tokens = np.asarray(row).reshape(-1)
        if len(tokens) and tokens.dtype.kind not in "iu":
            raise InputError(f"the column of tokens holds {tokens.dtype} values; token ids are integers")
        reading.documents += split_at(tokens, vocabulary.end_of_document_id)
    if texts and spec.tokenizer.kind == "none":
        raise InputError(
            "the corpus holds text, but tokenizer.kind is none; choose bytes or huggingface, or set "
            "corpus.column to the column of tokens"
        )
    reading.documents += (
        [document for document in _encode(texts, spec, base) if len(document)] if texts else []
    )


def _mds_rows(folder: Path, corpus: Corpus) -> Iterator[Any]:
    """The chosen column of every row of an MDS folder, in order."""
    shards = read_index(folder)
    encodings = dict(
        zip(shards[0].get("column_names", []), shards[0].get("column_encodings", []), strict=False)
    )
    column = _column(corpus, list(encodings), folder)
    for shard in shards:
        raw = shard.get("raw_data") or {}
        file = folder / str(raw.get("basename"))
        if not file.is_file():
            zipped = shard.get("zip_data")
            hint = (
                "only its compressed form is here: write the shards uncompressed"
                if zipped
                else "copy it anew"
            )
            raise InputError(f"{file}: this shard of {folder / INDEX} is missing; {hint}")
        if file.stat().st_size != raw.get("bytes"):
            raise InputError(
                f"{file}: {file.stat().st_size} bytes, but {folder / INDEX} says {raw.get('bytes')}; the "
                "shard is truncated or of another build: copy it anew"
            )
    try:
        from mixplan.compat import ensure_torchvision_imports

        ensure_torchvision_imports()
        from streaming import LocalDataset
    except ImportError:
        raise InputError(f"{folder}: install `mosaicml-streaming` to read MDS shards") from None
    dataset = LocalDataset(str(folder))
    for index in range(len(dataset)):
        value = dataset[index][column]
        # A `bytes` column holds tokens as raw integers, as header-less .npy files do.
        yield np.frombuffer(value, dtype=corpus.dtype) if isinstance(value, bytes) else value


def _datasets_rows(folder: Path, corpus: Corpus) -> Iterator[Any]:
    """The chosen column of every row of a dataset on disk, in order."""
    try:
        import datasets
    except ImportError:
        raise InputError(f"{folder}: install `datasets` to read a dataset on disk") from None
    try:
        dataset = datasets.load_from_disk(str(folder))
    except Exception as error:
        raise InputError(f"{folder}: not a dataset written by Dataset.save_to_disk ({error})") from None
    if isinstance(dataset, datasets.DatasetDict):
        raise InputError(
            f"{folder}: holds several splits ({', '.join(map(str, dataset))}); name the folder of one, e.g. "
            f"{folder / str(next(iter(dataset), 'train'))}"
        )
    column = _column(corpus, dataset.column_names, folder)
    for batch in dataset.select_columns([column]).iter(batch_size=1000):
        for value in batch[column]:
            if value is not None:
                yield value


def _column(corpus: Corpus, known: Sequence[str], folder: Path) -> str:
    if corpus.column is not None and corpus.column not in known:
        hint = did_you_mean(corpus.column, known)
        raise InputError(f"{folder}: corpus.column is {corpus.column!r}, which it does not have{hint}")
    column = corpus.column or next((name for name in ("tokens", "text") if name in known), None)
    if column is None:
        raise InputError(
            f"{folder}: no column `tokens` or `text`; set corpus.column to one of: {', '.join(known)}"
        )
    return column


def _first(problems: list[str], what: str) -> list[str]:
    more = len(problems) - _SHOWN
    return problems if more <= 0 else [*problems[:_SHOWN], f"… and {more} more {what} with such problems"]

"""Text documents become tokens.

Shape legend: an array [n] holds token ids; a document's last id is end-of-document.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from mixplan.compat import ensure_torchvision_imports
from mixplan.documents.calibration_spec import Tokenizer
from mixplan.errors import InputError

BYTES_END_OF_DOCUMENT = 256
# Text has fewer; for the disk space that is needed at least.
_HUGGINGFACE_BYTES_PER_TOKEN = 8
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
# Documents go to the tokenizer together, or the call costs more than a short one.
_TOGETHER_BYTES = 1 << 20
Documents = Iterable[tuple[Callable[[], str], bytes, bool]]
"""(where the document is, for messages; a chunk of it; whether it ends with that chunk)"""


@dataclass(frozen=True)
class Encoder:
    """A tokenizer, ready for use; may be sent to another process."""

    kind: str
    vocab_size: int
    """Highest token id + 1: ids may have holes, so this may be more than there are tokens."""
    end_of_document_id: int
    sha256: str | None = None
    bytes_per_token: int = 1
    """At most; exact for bytes."""
    backend: str = ""
    """Of a Hugging Face tokenizer: it itself, as JSON."""

    def encode(self, documents: Documents) -> Iterator[np.ndarray]:
        """Arrays [n] of token ids (uint8 … int64).

        Raises:
            InputError: naming the place, when a document is not text for this tokenizer.
        """
        if self.kind == "bytes":
            return _encode_bytes(documents)
        assert self.backend, "there is no tokenizer for text"
        return _encode_huggingface(documents, _opened(self.backend), self.end_of_document_id)


def open_encoder(tokenizer: Tokenizer, base: Path) -> Encoder:
    """The encoder of a plan's tokenizer; with kind none it only knows the vocabulary and the end of document.

    Args:
        tokenizer: as in the plan.
        base: folder that its path is relative to.

    Raises:
        InputError: no tokenizer in the folder, or one without an end-of-document token.
    """
    if tokenizer.kind == "bytes":
        return Encoder("bytes", BYTES_END_OF_DOCUMENT + 1, BYTES_END_OF_DOCUMENT)
    if tokenizer.kind == "none":
        assert tokenizer.vocab_size is not None and tokenizer.end_of_document_id is not None
        return Encoder("none", tokenizer.vocab_size, tokenizer.end_of_document_id)
    return _open_huggingface(base / Path(str(tokenizer.path)).expanduser())


def check_vocabulary(encoder: Encoder, vocabulary: int) -> None:
    """Refuse a plan's vocabulary that some of the tokenizer's ids are not in.

    Raises:
        InputError: it is too small.
    """
    if encoder.vocab_size > vocabulary:
        raise InputError(
            f"the tokenizer's ids go up to {encoder.vocab_size - 1:,}, beyond vocab_size={vocabulary}; set "
            f"vocab_size to at least {encoder.vocab_size}"
        )


def _encode_bytes(documents: Documents) -> Iterator[np.ndarray]:
    end = np.array([BYTES_END_OF_DOCUMENT], np.uint16)
    for _, chunk, ends in documents:
        yield np.frombuffer(chunk, np.uint8)
        if ends:
            yield end


def _open_huggingface(folder: Path) -> Encoder:
    if not (folder / "tokenizer.json").is_file():
        raise InputError(
            f"tokenizer: {folder} holds no tokenizer.json; give the folder of a Hugging Face tokenizer"
        )
    ensure_torchvision_imports()
    from transformers import AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        said = " ".join(str(error).split())  # transformers lists hundreds of models where it knows none
        raise InputError(
            f"tokenizer: {folder} cannot be loaded: {said[:160]}{'…' if len(said) > 160 else ''}; its "
            'tokenizer_config.json must name a class, e.g. "tokenizer_class": "PreTrainedTokenizerFast"'
        ) from None
    if tokenizer.eos_token_id is None:
        raise InputError(
            f"tokenizer: {folder} has no eos_token; name the end-of-document token in its "
            "tokenizer_config.json"
        )
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise InputError(
            f"tokenizer: {folder} is loaded as {type(tokenizer).__name__}, which works in Python only; name "
            'a fast class in its tokenizer_config.json, e.g. "PreTrainedTokenizerFast"'
        )
    return Encoder(
        "huggingface",
        1 + max(int(tokenizer.eos_token_id), *tokenizer.get_vocab().values()),
        int(tokenizer.eos_token_id),
        files_sha256(folder),
        _HUGGINGFACE_BYTES_PER_TOKEN,
        backend.to_str(),
    )


def files_sha256(folder: Path) -> str | None:
    """SHA-256 over the files of a Hugging Face tokenizer; empty where the folder holds none."""
    if not (folder / "tokenizer.json").is_file():
        return None
    digest = hashlib.sha256()
    for name in _TOKENIZER_FILES:
        if (folder / name).is_file():
            digest.update(name.encode() + b"\0" + (folder / name).read_bytes())
    return digest.hexdigest()


@lru_cache(maxsize=2)
def _opened(backend: str) -> Any:
    """The tokenizer without truncation and padding, which its file may ask for."""
    # Its threads would compete with the other processes, and a forked process must not start any.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from tokenizers import Tokenizer as Backend

    tokenizer = Backend.from_str(backend)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _encode_huggingface(documents: Documents, tokenizer: Any, end: int) -> Iterator[np.ndarray]:
    texts: list[str] = []
    chunks: list[bytes] = []
    together = 0
    for where, chunk, ends in documents:
        chunks.append(chunk)
        together += len(chunk)
        if not ends:
            continue
        try:
            texts.append(b"".join(chunks).decode("utf-8"))
        except UnicodeDecodeError as error:
            raise InputError(
                f"{where()}: not UTF-8 text (byte {error.start}), which this tokenizer needs; convert it, or "
                "leave it out with `pattern`"
            ) from None
        chunks = []
        if together >= _TOGETHER_BYTES:
            yield _ids(texts, tokenizer, end)
            texts, together = [], 0
    if texts:
        yield _ids(texts, tokenizer, end)


def _ids(texts: list[str], tokenizer: Any, end: int) -> np.ndarray:
    """The ids [n] of the documents, each followed by its end."""
    # Without offsets in the text, which take a third of the time and are not needed.
    encoded = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    return np.concatenate([part for one in encoded for part in (np.array(one.ids, np.int64), [end])])

"""Text documents become tokens.

Shape legend: a piece is an int32 array [n] of token ids; a document's last piece ends with end-of-document.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mixplan.compat import ensure_torchvision_imports
from mixplan.documents.calibration_spec import Tokenizer
from mixplan.errors import InputError

BYTES_END_OF_DOCUMENT = 256
# Bytes a token is taken to stand for when shards are sized before tokenising; text has fewer, so more shards.
_HUGGINGFACE_BYTES_PER_TOKEN = 6
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
Documents = Iterable[tuple[Path, bytes, bool]]


@dataclass(frozen=True)
class Encoder:
    """A tokenizer, ready for use."""

    kind: str
    vocab_size: int
    end_of_document_id: int
    sha256: str | None
    bytes_per_token: int
    """For a guess at the token count; exact for bytes."""
    encode: Callable[[Documents], Iterator[np.ndarray]]
    """(file, chunk, document ends) → int32 pieces.

    Raises InputError naming the file when a document is not text for this tokenizer.
    """


def open_encoder(tokenizer: Tokenizer, base: Path) -> Encoder:
    """The encoder of a plan's tokenizer.

    Args:
        tokenizer: as in the plan.
        base: folder that its path is relative to.

    Raises:
        InputError: kind none, no tokenizer in the folder, or one without an end-of-document token.
    """
    if tokenizer.kind == "bytes":
        return Encoder("bytes", BYTES_END_OF_DOCUMENT + 1, BYTES_END_OF_DOCUMENT, None, 1, _encode_bytes)
    if tokenizer.kind == "none":
        raise InputError(
            "tokenizer: kind none says that the data are tokens already, but sources have `text`; "
            "use kind bytes or huggingface, or drop `text`"
        )
    return _open_huggingface(base / Path(str(tokenizer.path)).expanduser())


def _encode_bytes(documents: Documents) -> Iterator[np.ndarray]:
    for _, chunk, ends in documents:
        yield np.frombuffer(chunk, np.uint8).astype(np.int32)
        if ends:
            yield np.array([BYTES_END_OF_DOCUMENT], np.int32)


def _open_huggingface(folder: Path) -> Encoder:
    if not (folder / "tokenizer.json").is_file():
        raise InputError(
            f"tokenizer: {folder} holds no tokenizer.json; give the folder of a Hugging Face tokenizer"
        )
    ensure_torchvision_imports()
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
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
    end = int(tokenizer.eos_token_id)
    digest = hashlib.sha256()
    for name in _TOKENIZER_FILES:
        if (folder / name).is_file():
            digest.update(name.encode() + b"\0" + (folder / name).read_bytes())
    return Encoder(
        "huggingface",
        len(tokenizer),
        end,
        digest.hexdigest(),
        _HUGGINGFACE_BYTES_PER_TOKEN,
        lambda documents: _encode_huggingface(documents, tokenizer, end),
    )


def _encode_huggingface(documents: Documents, tokenizer: Any, end: int) -> Iterator[np.ndarray]:
    held: list[bytes] = []
    for path, chunk, ends in documents:
        held.append(chunk)
        if not ends:
            continue
        try:
            text = b"".join(held).decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{path}: not UTF-8 text (byte {error.start}), which this tokenizer needs; convert it, or "
                "leave it "
                "out with `pattern`"
            ) from None
        held = []
        # verbose=False: a document longer than the model's context is meant, it is cut into samples here.
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        yield np.array([*ids, end], np.int32)

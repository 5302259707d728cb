"""Text becomes token ids: bytes, or a local Hugging Face tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mixplan.documents.calibration_spec import Tokenizer
from mixplan.errors import InputError


def encoder_for(tokenizer: Tokenizer, base: Path) -> Callable[[str], list[int]] | None:
    """Text → token ids without special tokens; None when the corpus comes as tokens.

    Raises:
        InputError: the tokenizer folder cannot be read.
    """
    if tokenizer.kind == "none":
        return None
    if tokenizer.kind == "bytes":
        return lambda text: list(text.encode("utf-8"))
    fast = load_tokenizer(base / str(tokenizer.path))
    return lambda text: list(fast.encode(text, add_special_tokens=False).ids)


def load_tokenizer(folder: Path) -> Any:
    """The `tokenizers` object of a tokenizer folder, without the truncation and padding it may ask for.

    Raises:
        InputError: `tokenizers` is not installed, or the folder's tokenizer.json cannot be read.
    """
    try:
        from tokenizers import Tokenizer as FastTokenizer
    except ImportError:
        raise InputError("install `tokenizers` to read text through a Hugging Face tokenizer") from None
    path = folder / "tokenizer.json"
    try:
        fast = FastTokenizer.from_file(str(path))
    except Exception as error:
        raise InputError(f"{path}: cannot be read as a tokenizer ({error})") from None
    fast.no_truncation()
    fast.no_padding()
    return fast

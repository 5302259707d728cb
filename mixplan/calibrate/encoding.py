"""Text becomes token ids: bytes, or a local Hugging Face tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

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
    from tokenizers import Tokenizer as FastTokenizer

    path = base / str(tokenizer.path) / "tokenizer.json"
    if not path.is_file():
        raise InputError(f"{path}: no such file; `tokenizer.path` must be a folder with a tokenizer.json")
    fast = FastTokenizer.from_file(str(path))
    return lambda text: fast.encode(text, add_special_tokens=False).ids

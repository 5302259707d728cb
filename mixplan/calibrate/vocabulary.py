"""How many base tokens there are and which one ends a document, without importing a tokenizer library."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mixplan.documents.calibration_spec import Tokenizer
from mixplan.errors import InputError

BYTES_VOCAB_SIZE = 257
BYTES_END_OF_DOCUMENT = 256
# End-of-document tokens of well-known tokenizers (GPT-2, OLMo, Qwen; Llama; Gemma), most specific first.
_END_TOKENS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "[EOS]")


@dataclass(frozen=True)
class Vocabulary:
    """Base vocabulary, before the symbols of injected tasks are appended."""

    size: int
    """Highest token id + 1, end of document included."""
    end_of_document_id: int


def vocabulary(tokenizer: Tokenizer, base: Path) -> Vocabulary:
    """The base vocabulary of a calibration.

    A Hugging Face tokenizer's end of document is the `eos_token` of tokenizer_config.json (or of
    special_tokens_map.json), else one of the names that well-known tokenizers use.

    Args:
        base: folder of calibration.yaml; `tokenizer.path` is relative to it.

    Raises:
        InputError: the tokenizer folder cannot be read, or names no end of document; with kind none, the
            end-of-document id is not below the vocabulary's size.
    """
    if tokenizer.kind == "bytes":
        return Vocabulary(BYTES_VOCAB_SIZE, BYTES_END_OF_DOCUMENT)
    if tokenizer.kind == "none":
        assert tokenizer.vocab_size is not None and tokenizer.end_of_document_id is not None
        if tokenizer.end_of_document_id >= tokenizer.vocab_size:
            raise InputError(
                f"tokenizer.end_of_document_id is {tokenizer.end_of_document_id}, but ids go from 0 to "
                f"tokenizer.vocab_size − 1 = {tokenizer.vocab_size - 1}; correct one of them"
            )
        return Vocabulary(tokenizer.vocab_size, tokenizer.end_of_document_id)
    folder = base / str(tokenizer.path)
    ids = _token_ids(folder / "tokenizer.json")
    named = _named_end(folder)
    candidates = [named] if named else list(_END_TOKENS)
    found = next((ids[name] for name in candidates if name in ids), None)
    if found is None:
        raise InputError(
            f"{folder}: no end-of-document token: "
            + (
                f"eos_token is {named!r}, which is not in the vocabulary"
                if named
                else "eos_token is not named"
            )
            + '; put {"eos_token": "<the token>"} into tokenizer_config.json'
        )
    return Vocabulary(max(ids.values()) + 1, found)


def ordinary_ids(tokenizer: Tokenizer, base: Path | None) -> np.ndarray:
    """Ids of the tokens that text is made of, ascending.

    Bytes: the 256. A tokenizer folder: every token but the end of document and the added tokens that
    tokenizer.json calls special. A tokenised corpus does not say which tokens are special: all ids but the
    end of document.

    Args:
        base: folder of calibration.yaml; needed for a tokenizer folder.

    Raises:
        InputError: the tokenizer folder cannot be read.
    """
    if tokenizer.kind == "huggingface":
        if base is None:
            raise ValueError("the folder of calibration.yaml is needed to find the tokenizer")
        path = base / str(tokenizer.path) / "tokenizer.json"
        added = _tokenizer_json(path).get("added_tokens") or []
        special = {entry["id"] for entry in added if entry.get("special")}
        ids = set(_token_ids(path).values()) - special
    else:
        ids = set(range(vocabulary(tokenizer, Path()).size))
    return np.array(sorted(ids - {vocabulary(tokenizer, base or Path()).end_of_document_id}))


def _token_ids(path: Path) -> dict[str, int]:
    """Every token of a tokenizer.json and its id: the model's vocabulary and the added tokens."""
    data = _tokenizer_json(path)
    model = data.get("model")
    listed = model.get("vocab") if isinstance(model, dict) else None
    try:
        # BPE, WordPiece and WordLevel map tokens to ids; Unigram lists [token, score] in the order of ids.
        ids = (
            dict(listed)
            if isinstance(listed, dict)
            else {entry[0]: i for i, entry in enumerate(listed or [])}
        )
        ids |= {entry["content"]: entry["id"] for entry in data.get("added_tokens") or []}
    except (KeyError, TypeError, IndexError):
        ids = {}
    if not ids or not all(isinstance(value, int) for value in ids.values()):
        raise InputError(
            f"{path}: holds no vocabulary; a tokenizer.json of the `tokenizers` library is needed"
        )
    return ids


def _tokenizer_json(path: Path) -> dict[str, Any]:
    data = _json(path)
    if data is None:
        raise InputError(f"{path}: no such file; `tokenizer.path` must be a folder with a tokenizer.json")
    return data


def _named_end(folder: Path) -> str | None:
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        token = (_json(folder / file) or {}).get("eos_token")
        if isinstance(token, dict):  # older files keep a token with its flags
            token = token.get("content")
        if isinstance(token, str):
            return token
    return None


def _json(path: Path) -> dict[str, Any] | None:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: not JSON ({error})") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: a JSON object is needed")
    return data

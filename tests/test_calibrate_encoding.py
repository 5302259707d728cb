"""Text becomes token ids, for the corpus and for the team's own tasks alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixplan.calibrate.encoding import encoder_for
from mixplan.calibrate.vocabulary import ordinary_ids, vocabulary
from mixplan.documents.calibration_spec import Tokenizer
from mixplan.errors import InputError


def test_bytes_and_none() -> None:
    encode = encoder_for(Tokenizer(), Path("."))
    assert encode is not None and encode("aé") == [97, 0xC3, 0xA9]
    tokens = Tokenizer(kind="none", vocab_size=10, end_of_document_id=0)
    assert encoder_for(tokens, Path(".")) is None


def test_a_tokenizer_that_pads_and_truncates_does_neither_here(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Fast
    from tokenizers import models, pre_tokenizers

    fast = Fast(models.WordLevel({"[pad]": 0, "a": 1, "b": 2}, unk_token="[pad]"))
    fast.pre_tokenizer = pre_tokenizers.Whitespace()
    fast.enable_padding(length=8)
    fast.enable_truncation(2)
    (tmp_path / "tok").mkdir()
    fast.save(str(tmp_path / "tok" / "tokenizer.json"))
    encode = encoder_for(Tokenizer(kind="huggingface", path="tok"), tmp_path)
    assert encode is not None and encode("a b a b") == [1, 2, 1, 2]


def test_ids_with_holes_are_all_in_the_vocabulary(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Fast
    from tokenizers import models, pre_tokenizers

    fast = Fast(models.WordLevel({"<eos>": 0, "a": 1, "b": 70_000}, unk_token="<eos>"))
    fast.pre_tokenizer = pre_tokenizers.Whitespace()
    (tmp_path / "tok").mkdir()
    fast.save(str(tmp_path / "tok" / "tokenizer.json"))
    tokenizer = Tokenizer(kind="huggingface", path="tok")
    encode = encoder_for(tokenizer, tmp_path)
    assert encode is not None and encode("a b") == [1, 70_000]
    assert vocabulary(tokenizer, tmp_path).size == 70_001
    assert ordinary_ids(tokenizer, tmp_path).tolist() == [1, 70_000]


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read as a tokenizer"):
        encoder_for(Tokenizer(kind="huggingface", path="nowhere"), tmp_path)

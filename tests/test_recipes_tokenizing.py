"""A Hugging Face tokenizer gives build the ids that it gives everybody else."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from recipes_making import write_plan
from recipes_reading import rows

from mixplan.compat import ensure_torchvision_imports
from mixplan.documents.calibration_spec import Tokenizer
from mixplan.errors import InputError
from mixplan.recipes import tokenizing
from mixplan.recipes.building import build
from mixplan.recipes.pieces import Piece, Seen, read_piece
from mixplan.recipes.scanning import scan
from mixplan.recipes.tokenizing import Encoder, open_encoder

TEXTS = [path.read_text(encoding="utf-8") for path in sorted(Path(json.__file__).parent.glob("*.py"))] + [
    "größer – 日本語 🙂\n\n\t x",
    " leading",
    "<|end|> inside",
    "a",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE that truncates, pads, and puts a token before each text, if it is let."""
    ensure_torchvision_imports()
    from tokenizers import Tokenizer as Backend
    from tokenizers import models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Backend(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<|end|>", "<|start|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(TEXTS, trainer)
    inner.post_processor = processors.TemplateProcessing(
        single="<|start|> $A", pair="$A $B", special_tokens=[("<|start|>", 1)]
    )
    inner.enable_truncation(8)
    inner.enable_padding(length=16, pad_token="<|end|>")
    place = tmp_path_factory.mktemp("tokenizer")
    PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|end|>").save_pretrained(place)
    return place


def encoded(encoder: Encoder) -> list[int]:
    documents = (((lambda: "here"), text.encode(), True) for text in TEXTS)
    return [int(token) for part in encoder.encode(documents) for token in part]


def test_the_ids_are_those_of_the_tokenizer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    wanted: list[int] = []
    for text in TEXTS:
        ids = tokenizer(text, add_special_tokens=False, truncation=False, padding=False)["input_ids"]
        assert ids and len(ids) != 16
        wanted += [*ids, tokenizer.eos_token_id]
    encoder = open_encoder(Tokenizer(kind="huggingface", path=str(folder)), Path())
    assert encoded(encoder) == wanted
    assert (encoder.vocab_size, encoder.end_of_document_id) == (max(tokenizer.get_vocab().values()) + 1, 0)
    monkeypatch.setattr(tokenizing, "_TOGETHER_BYTES", 1)
    assert encoded(encoder) == wanted, "however many go together"


def test_it_goes_to_another_process(folder: Path) -> None:
    encoder = open_encoder(Tokenizer(kind="huggingface", path=str(folder)), Path())
    assert encoded(pickle.loads(pickle.dumps(encoder))) == encoded(encoder)


def test_a_document_may_come_in_parts(folder: Path) -> None:
    text = "größer 日本語 " * 5
    whole = text.encode()
    for encoder in (
        open_encoder(Tokenizer(kind="huggingface", path=str(folder)), Path()),
        open_encoder(Tokenizer(), Path()),
    ):
        parts = [(str, whole[:3], False), (str, whole[3:], True)]  # the first ends inside a character
        together = np.concatenate(list(encoder.encode([(str, whole, True)])))
        assert np.concatenate(list(encoder.encode(parts))).tolist() == together.tolist()


@pytest.mark.parametrize("highest", [200, 300, 70_000])
def test_ids_with_holes_stay_as_they_are(tmp_path: Path, highest: int) -> None:
    """Five tokens, one of which has an id that would not fit where five ids do."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import models, pre_tokenizers

    inner = Backend(
        models.WordLevel({"[UNK]": 0, "<eos>": 1, "a": 2, "b": highest, "c": 3}, unk_token="[UNK]")
    )
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    (tmp_path / "tokenizer").mkdir()
    inner.save(str(tmp_path / "tokenizer" / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<eos>"}
    (tmp_path / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "a.txt").write_text("a b c " * 11)
    source = {"web": {"text": ["a.txt"], "mds": "mds"}}
    more = {"tokenizer": {"kind": "huggingface", "path": "tokenizer"}, "sequence_length": 3}
    small = write_plan(tmp_path, source, vocab_size=5, **more)
    for command in (build, scan):
        with pytest.raises(
            InputError, match=f"beyond vocab_size=5; set vocab_size to at least {highest + 1}"
        ):
            command(small)
    (built,) = build(write_plan(tmp_path, source, vocab_size=highest + 1, **more))
    assert rows(built.folder).tolist() == [[2, highest, 3]] * 11
    assert built.build.vocab_size == highest + 1
    encoder = open_encoder(Tokenizer(kind="huggingface", path="tokenizer"), tmp_path)
    piece = Piece(tmp_path / "a.txt", "raw", 66)
    with pytest.raises(
        InputError, match=rf"a\.txt: becomes the ids 1 … {highest:,}, but the vocabulary has 5 "
    ):
        list(read_piece(piece, replace(encoder, vocab_size=5), highest + 1, Seen()))
    marker = tmp_path / "mds" / "source.json"  # of a version that took the number of tokens for it
    marker.write_text(marker.read_text().replace(f'"vocab_size": {highest + 1}', '"vocab_size": 5'))
    with pytest.raises(InputError, match=f"other input or settings .vocab_size is 5, not {highest + 1}"):
        build(tmp_path / "plan.yaml")

"""A Hugging Face tokenizer gives build the ids that it gives everybody else."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from mixplan.compat import ensure_torchvision_imports
from mixplan.documents.calibration_spec import Tokenizer
from mixplan.recipes import tokenizing
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
    assert (encoder.vocab_size, encoder.end_of_document_id) == (len(tokenizer), 0)
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

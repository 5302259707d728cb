"""The corpus: every format, the split, and what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixplan.calibrate.corpus import CorpusTokens, load_corpus, repetition_note
from mixplan.calibrate.vocabulary import vocabulary
from mixplan.documents.calibration_spec import CalibrationSpec, Tokenizer
from mixplan.errors import InputError

SEQUENCE = 16
NONE = {"kind": "none", "vocab_size": 1000, "end_of_document_id": 999}


def spec(
    tokenizer: dict[str, Any] | None = None, sequence_length: int = SEQUENCE, **corpus: Any
) -> CalibrationSpec:
    return CalibrationSpec.model_validate(
        {
            "corpus": {"paths": ["."], **corpus},
            "tokenizer": tokenizer or {},
            "ladder": ["cpu_8k"],
            "horizons": {"tokens": [1000]},
            "sequence_length": sequence_length,
            "tasks": [{"family": "comparison", "complexities": [4], "frequencies": [1e-3]}],
        }
    )


def text_files(folder: Path, count: int = 40, size: int = 100) -> list[bytes]:
    generator = np.random.default_rng(0)
    held = []
    for index in range(count):
        held.append(bytes(generator.integers(97, 123, size=size, dtype=np.uint8)))
        path = folder / f"{index % 3}" / f"{index:03d}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(held[-1])
    return held


def documents(stream: np.ndarray, end: int) -> list[bytes]:
    """Pieces between end-of-document tokens, each as int32 bytes."""
    cuts = np.flatnonzero(stream == end)
    return [piece[piece != end].tobytes() for piece in np.split(stream, cuts + 1) if len(piece[piece != end])]


def problems(given: CalibrationSpec, base: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_corpus(given, base)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_bytes_every_document_once_and_only_on_one_side(tmp_path: Path) -> None:
    held = text_files(tmp_path)
    corpus = load_corpus(spec(held_out_fraction=0.25), tmp_path)
    assert (corpus.vocab_size, corpus.end_of_document_id, corpus.files, corpus.documents) == (
        257,
        256,
        40,
        40,
    )
    assert corpus.train.dtype == corpus.held_out.dtype == np.int32
    train, held_out = documents(corpus.train, 256), documents(corpus.held_out, 256)
    expected = sorted(np.frombuffer(text, np.uint8).astype(np.int32).tobytes() for text in held)
    # 0.25 × 4040 tokens ÷ 8 pieces: every document of 100 is below that, so none is cut.
    assert sorted(train + held_out) == expected
    assert not set(train) & set(held_out)
    assert len(corpus.held_out) == 10 * 101
    assert corpus.train[-1] == corpus.held_out[-1] == 256


def test_same_files_same_tokens_whatever_the_folder_order(tmp_path: Path) -> None:
    text_files(tmp_path)
    first = load_corpus(spec(), tmp_path)
    again = load_corpus(spec(paths=["2", "0", "1", "0"]), tmp_path)
    assert first.sha256 == again.sha256
    assert np.array_equal(first.train, again.train) and np.array_equal(first.held_out, again.held_out)
    (tmp_path / "0" / "000.txt").write_bytes(b"x" * 100)
    assert load_corpus(spec(), tmp_path).sha256 != first.sha256


def test_both_sides_hold_the_same_kinds_of_text(tmp_path: Path) -> None:
    for index in range(200):
        letter = b"a" if index < 100 else b"b"
        (tmp_path / f"{index:03d}.txt").write_bytes(letter * 50 + str(index).encode())
    corpus = load_corpus(spec(held_out_fraction=0.3), tmp_path)
    for stream in (corpus.train, corpus.held_out, corpus.train[: len(corpus.train) // 2]):
        share = np.mean(stream[stream >= 97] == 97)
        assert 0.35 < share < 0.65


def test_equal_documents_stay_on_one_side(tmp_path: Path) -> None:
    for index in range(60):
        (tmp_path / f"{index}.txt").write_bytes(b"%03d" % (index // 3) * 30)
    corpus = load_corpus(spec(held_out_fraction=0.3), tmp_path)
    assert not set(documents(corpus.train, 256)) & set(documents(corpus.held_out, 256))


def test_one_big_file_is_cut_and_said_so(tmp_path: Path) -> None:
    text = bytes(np.random.default_rng(1).integers(97, 123, size=20_000, dtype=np.uint8))
    (tmp_path / "one.txt").write_bytes(text)
    corpus = load_corpus(spec(held_out_fraction=0.1), tmp_path)
    pieces = documents(corpus.train, 256) + documents(corpus.held_out, 256)
    longest = max(len(piece) // 4 for piece in pieces)
    assert longest <= 0.1 * 20_001 / 8
    assert sum(len(piece) // 4 for piece in pieces) == 20_000
    assert 2000 <= len(corpus.held_out) <= 2000 + longest + 1
    assert any("were cut into pieces" in note for note in corpus.notes)
    assert corpus.documents == 1


def test_max_tokens_is_exact_and_the_held_out_part_follows_it(tmp_path: Path) -> None:
    text_files(tmp_path)
    corpus = load_corpus(spec(max_tokens=777, held_out_fraction=0.1), tmp_path)
    assert len(corpus.train) == 777
    assert 777 / 9 <= len(corpus.held_out) < 777 / 9 + 101
    short = load_corpus(spec(max_tokens=10**9), tmp_path)
    assert any("max_tokens" in note for note in short.notes)


def test_patterns_globs_hidden_and_empty_files(tmp_path: Path) -> None:
    text_files(tmp_path)
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.txt").write_text("hidden" * 100)
    (tmp_path / "0" / "empty.txt").write_text("")
    (tmp_path / "0" / "code.py").write_text("print()\n" * 20)
    corpus = load_corpus(spec(pattern="*.txt"), tmp_path)
    assert (corpus.files, corpus.documents) == (41, 40)
    assert any("1 of 41 files are empty" in note for note in corpus.notes)
    assert load_corpus(spec(paths=["*/*.txt"]), tmp_path).sha256 == corpus.sha256


def npy_documents(count: int = 30) -> list[np.ndarray]:
    generator = np.random.default_rng(2)
    return [generator.integers(0, 999, size=int(generator.integers(20, 60))) for _ in range(count)]


def same_corpus(found: CorpusTokens, held: list[np.ndarray], end: int) -> None:
    pieces = sorted(documents(found.train, end) + documents(found.held_out, end))
    assert pieces == sorted(document.astype(np.int32).tobytes() for document in held)


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("dtype", ["uint16", "uint32", "int64"])
def test_npy_with_and_without_header(tmp_path: Path, header: bool, dtype: str) -> None:
    held = npy_documents()
    for part, some in enumerate((held[:11], held[11:])):
        flat = np.concatenate([np.append(document, 999) for document in some]).astype(dtype)
        if header:
            np.save(tmp_path / f"{part}.npy", flat)
        else:
            flat.tofile(tmp_path / f"{part}.npy")
    (tmp_path / "notes.csv").write_text("not tokens")  # token folders default to *.npy
    corpus = load_corpus(
        spec(
            NONE, format="npy", dtype="uint8" if header else dtype, sequence_length=64, held_out_fraction=0.4
        ),
        tmp_path,
    )
    assert (corpus.vocab_size, corpus.files, corpus.documents) == (1000, 2, 30)
    same_corpus(corpus, held, 999)


def test_mds_tokens_text_and_bytes(tmp_path: Path) -> None:
    from mixplan.compat import ensure_torchvision_imports

    ensure_torchvision_imports()
    from streaming import MDSWriter

    held = [np.array(document[:20], dtype=np.int32) for document in npy_documents()]
    columns = {"tokens": "ndarray:int32:20", "text": "str", "raw": "bytes"}
    with MDSWriter(out=str(tmp_path / "mds"), columns=columns, size_limit=2000) as writer:
        for index, document in enumerate(held):
            text = f"document number {index}, long enough for a sequence"
            writer.write({"tokens": document, "text": text, "raw": document.astype(np.uint16).tobytes()})
    tokens = load_corpus(spec(NONE, format="mds", paths=["mds"], held_out_fraction=0.3), tmp_path)
    same_corpus(tokens, held, 999)
    raw = load_corpus(spec(NONE, format="mds", paths=["mds"], column="raw", held_out_fraction=0.3), tmp_path)
    assert raw.sha256 == tokens.sha256
    text = load_corpus(spec(format="mds", paths=["mds"], column="text"), tmp_path)
    assert b"document number 7," in bytes(text.train[text.train < 256].astype(np.uint8)) + bytes(
        text.held_out[text.held_out < 256].astype(np.uint8)
    )
    wrong = problems(spec(NONE, format="mds", paths=["mds"], column="token"), tmp_path)
    assert "did you mean 'tokens'?" in wrong
    assert "tokenizer.kind is none" in problems(
        spec(NONE, format="mds", paths=["mds"], column="text"), tmp_path
    )
    shard = sorted((tmp_path / "mds").glob("shard*.mds"))[0]
    shard.write_bytes(shard.read_bytes()[:-50])
    assert "truncated" in problems(spec(NONE, format="mds", paths=["mds"]), tmp_path)
    shard.unlink()
    assert "is missing" in problems(spec(NONE, format="mds", paths=["mds"]), tmp_path)


def test_datasets_on_disk(tmp_path: Path) -> None:
    import datasets

    held = npy_documents()
    rows = {"tokens": [d.tolist() for d in held], "text": ["some words and more"] * len(held)}
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "set")
    datasets.DatasetDict({"train": datasets.Dataset.from_dict(rows)}).save_to_disk(tmp_path / "splits")
    corpus = load_corpus(
        spec(NONE, format="datasets", paths=["set"], sequence_length=64, held_out_fraction=0.4), tmp_path
    )
    same_corpus(corpus, held, 999)
    assert "splits/train" in problems(spec(NONE, format="datasets", paths=["splits"]), tmp_path)
    assert "did you mean 'text'?" in problems(spec(format="datasets", paths=["set"], column="txt"), tmp_path)
    (tmp_path / "other").mkdir()
    assert "save_to_disk" in problems(spec(format="datasets", paths=["other"]), tmp_path)
    assert "is no folder" in problems(spec(format="datasets", paths=["nowhere"]), tmp_path)


def tokenizer_folder(folder: Path, kind: str = "bpe", end: str = "<|endoftext|>") -> Path:
    from tokenizers import Tokenizer as Fast
    from tokenizers import decoders, models, pre_tokenizers, trainers

    folder.mkdir()
    text = ["the quick brown fox jumps over the lazy dog and so on, again and again"] * 20
    if kind == "bpe":
        fast = Fast(models.BPE())
        fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        fast.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer: Any = trainers.BpeTrainer(vocab_size=300, special_tokens=[end], initial_alphabet=alphabet)
    else:
        fast = Fast(models.Unigram())
        trainer = trainers.UnigramTrainer(vocab_size=60, special_tokens=[end, "<unk>"], unk_token="<unk>")
    fast.train_from_iterator(text, trainer)
    fast.enable_truncation(8)  # some tokenizer.json ask for it; a corpus must not be truncated
    fast.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_vocabulary_read_from_json_is_the_library_s(tmp_path: Path, kind: str) -> None:
    from tokenizers import Tokenizer as Fast

    folder = tokenizer_folder(tmp_path / "tok", kind)
    fast = Fast.from_file(str(folder / "tokenizer.json"))
    words = vocabulary(Tokenizer(kind="huggingface", path="tok"), tmp_path)
    assert words.size == fast.get_vocab_size(with_added_tokens=True) == max(fast.get_vocab().values()) + 1
    assert words.end_of_document_id == fast.token_to_id("<|endoftext|>")


def test_end_of_document_is_the_one_that_the_tokenizer_names(tmp_path: Path) -> None:
    folder = tokenizer_folder(tmp_path / "tok", end="<fin>")
    given = Tokenizer(kind="huggingface", path="tok")
    with pytest.raises(InputError, match="eos_token is not named"):
        vocabulary(given, tmp_path)
    (folder / "special_tokens_map.json").write_text(json.dumps({"eos_token": {"content": "<fin>"}}))
    assert vocabulary(given, tmp_path).end_of_document_id == 0
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<gone>"}))
    with pytest.raises(InputError, match="'<gone>', which is not in the vocabulary"):
        vocabulary(given, tmp_path)


def test_text_through_a_hugging_face_tokenizer(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Fast

    folder = tokenizer_folder(tmp_path / "tok")
    (tmp_path / "text").mkdir()
    held = [f"the fox number {index} jumps over the dog number {index}" for index in range(40)]
    for index, text in enumerate(held):
        (tmp_path / "text" / f"{index}.txt").write_text(text)
    given = spec(
        {"kind": "huggingface", "path": "tok"}, paths=["text"], held_out_fraction=0.4, sequence_length=64
    )
    corpus = load_corpus(given, tmp_path)
    fast = Fast.from_file(str(folder / "tokenizer.json"))
    fast.no_truncation()
    ids = [np.array(fast.encode(text, add_special_tokens=False).ids) for text in held]
    same_corpus(corpus, ids, corpus.end_of_document_id)
    assert min(map(len, ids)) > 8

    (tmp_path / "text" / "bad.txt").write_bytes(b"abc\xff\xfe")
    (tmp_path / "text" / "bad2.txt").write_bytes(b"\x80")
    found = problems(given, tmp_path)
    assert "bad.txt: not UTF-8 text (byte 3)" in found and "bad2.txt" in found


def test_tokenizer_problems(tmp_path: Path) -> None:
    text_files(tmp_path / "text")
    given = spec({"kind": "huggingface", "path": "tok"}, paths=["text"])
    assert "no such file" in problems(given, tmp_path)
    (tmp_path / "tok").mkdir()
    for content, message in (
        ("{", "not JSON"),
        ("[]", "JSON object"),
        ('{"model": {"vocab": 3}}', "no vocabulary"),
    ):
        (tmp_path / "tok" / "tokenizer.json").write_text(content)
        assert message in problems(given, tmp_path)


def test_every_problem_of_the_paths_at_once(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    found = problems(spec(paths=["missing", "empty", "*.none"]), tmp_path)
    assert "missing does not exist" in found
    assert "holds no file that matches" in found
    assert "no file matches '*.none'" in found


def test_empty_and_too_small(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("")
    assert "the corpus is empty" in problems(spec(), tmp_path)
    (tmp_path / "a.txt").write_text("abcdefgh")
    found = problems(spec(), tmp_path)
    assert "leaves 0 training tokens, less than one sequence of 16" in found
    assert "leaves 9 held-out tokens, less than one sequence of 16" in found
    text_files(tmp_path)
    found = problems(spec(sequence_length=2000, held_out_fraction=0.01), tmp_path)
    assert "raise corpus.held_out_fraction" in found


def test_wrong_ids_and_types(tmp_path: Path) -> None:
    flat = np.concatenate([np.append(document, 999) for document in npy_documents()])
    flat.astype(np.uint16).tofile(tmp_path / "a.npy")
    found = problems(spec({**NONE, "vocab_size": 500, "end_of_document_id": 1}, format="npy"), tmp_path)
    assert "token ids from 2 to 999, but ids go from 0 to 499" in found and "corpus.dtype (uint16)" in found
    assert "end_of_document_id is 5" in problems(
        spec({**NONE, "vocab_size": 5, "end_of_document_id": 5}, format="npy"), tmp_path
    )
    (tmp_path / "b.npy").write_bytes(b"abc")
    assert "3 bytes are not a whole number of uint16 tokens" in problems(spec(NONE, format="npy"), tmp_path)
    np.save(tmp_path / "b.npy", np.ones(10))
    assert "holds float64 values" in problems(spec(NONE, format="npy"), tmp_path)
    np.save(tmp_path / "b.npy", np.full(10, -1))
    assert "token ids from -1" in problems(spec(NONE, format="npy"), tmp_path)
    assert "needs a tokenizer" in problems(spec(NONE, format="text"), tmp_path)


def test_repetition_is_stated() -> None:
    assert repetition_note(100, 100) is None
    note = repetition_note(2_100_000, 3_300_000)
    assert note == (
        "the corpus has 2.1M training tokens and the longest run reads 3.3M: it is repeated 1.6 times"
    )


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 300), min_size=2, max_size=60),
    fraction=st.floats(0.05, 0.6),
    limit=st.none() | st.integers(SEQUENCE, 4000),
)
def test_split_keeps_every_token_once(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], fraction: float, limit: int | None
) -> None:
    folder = tmp_path_factory.mktemp("corpus")
    generator = np.random.default_rng(sum(lengths))
    flat = np.concatenate([np.append(generator.integers(0, 999, size=n), 999) for n in lengths])
    np.save(folder / "a.npy", flat)
    try:
        corpus = load_corpus(spec(NONE, format="npy", held_out_fraction=fraction, max_tokens=limit), folder)
    except InputError as error:
        assert "less than one sequence" in str(error)
        return
    train, held_out = documents(corpus.train, 999), documents(corpus.held_out, 999)
    whole = limit is None or len(corpus.train) < limit
    if whole:
        found = np.concatenate([np.frombuffer(piece, np.int32) for piece in train + held_out])
        assert np.array_equal(np.sort(found), np.sort(flat[flat != 999]))
    else:
        assert len(corpus.train) == limit
    used = len(flat) if limit is None else min(len(flat), limit / (1 - fraction))
    assert len(corpus.held_out) >= fraction * used - 1

"""Shards that build writes are, byte for byte, those of Streaming's own writer."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from recipes_reading import contents, rows

from mixplan.compat import ensure_torchvision_imports
from mixplan.errors import InputError
from mixplan.recipes.compressing import check_compression, compress, decompress
from mixplan.recipes.hashing import check_hashes, known_hashes
from mixplan.recipes.mds_folders import shard_files
from mixplan.recipes.mds_shards import ShardFormat
from mixplan.recipes.packing import index_text, pack, plan_packing


def write_both(tmp_path: Path, form: ShardFormat, samples: int) -> tuple[Path, Path]:
    """The same samples by mixplan, out of two token files, and by MDSWriter."""
    ensure_torchvision_imports()
    from streaming import MDSWriter

    tokens = np.random.default_rng(0).integers(0, 60_000, samples * form.sequence_length + 1).astype("uint16")
    cut = len(tokens) // 3
    spills = [(tmp_path / "a", cut), (tmp_path / "none", 0), (tmp_path / "b", len(tokens) - cut)]
    for (path, count), start in zip(spills, (0, cut, cut), strict=True):
        path.write_bytes(tokens[start : start + count].tobytes())
    folder, tasks = plan_packing(spills, "uint16", samples, form, tmp_path)
    folder.mkdir()
    entries = [entry for task in tasks for entry in pack(None, task)]
    (folder / "index.json").write_text(index_text(entries))
    column = {"tokens": f"ndarray:{form.dtype}:{form.sequence_length}"}
    with MDSWriter(
        columns=column,
        out=str(tmp_path / "streaming"),
        hashes=list(form.hashes),
        compression=form.compression,
        size_limit=tasks[0].size_limit,
    ) as writer:
        for row in tokens[:-1].reshape(samples, -1).astype(form.dtype):
            writer.write({"tokens": row})
    return folder, tmp_path / "streaming"


@pytest.mark.parametrize(
    ("length", "dtype", "compression", "hashes", "samples"),
    [
        (16, "int32", None, ("xxh3_64",), 200),
        (1, "int64", None, (), 31),
        (2048, "uint16", None, ("sha1", "sha256", "xxh128"), 70),
        (33, "int32", "zstd:3", ("md5", "xxh3_64"), 64),
        (33, "int32", "zstd", ("xxh3_64",), 40),
        (7, "uint16", "br:1", ("xxh64",), 5),
        (7, "uint16", "snappy", (), 100),
        (7, "uint16", "bz2:9", (), 100),
    ],
)
def test_the_bytes_are_those_of_the_writer(
    tmp_path: Path, length: int, dtype: str, compression: str | None, hashes: tuple[str, ...], samples: int
) -> None:
    ours, theirs = write_both(tmp_path, ShardFormat(length, dtype, compression, hashes), samples)
    assert contents(ours) == contents(theirs)
    read = np.concatenate([one.tokens() for one in shard_files(ours)]).reshape(samples, length)
    assert read.dtype == dtype
    if compression is None:  # Streaming's random access does not decompress
        assert rows(ours).tolist() == read.tolist()


def test_gz_is_the_same_every_time(tmp_path: Path) -> None:
    ours, theirs = write_both(tmp_path, ShardFormat(16, "int32", "gz:1", ()), 40)
    for name, data in contents(ours).items():
        if name != "index.json":
            assert gzip.decompress(data) == gzip.decompress((theirs / name).read_bytes())
            assert data[4:8] == bytes(4), "no time in it"
    read = [np.concatenate([one.tokens() for one in shard_files(folder)]) for folder in (ours, theirs)]
    assert read[0].tolist() == read[1].tolist() and len(read[0]) == 16 * 40


@pytest.mark.parametrize("samples", [1, 9, 99, 1000, 12_345])
def test_the_limit_holds_so_many_samples_and_no_more(samples: int) -> None:
    for length in (1, 2, 3, 20, 999, 2499, 2500):
        form = ShardFormat(length, "int32", None, ("xxh3_64",))
        limit = form.size_limit(samples)
        header = 8 + len(json.dumps(form.config(limit), sort_keys=True))
        sample = form.sample_bytes + 4
        assert header + samples * sample <= limit < header + (samples + 1) * sample


def test_tokens_are_found_across_files(tmp_path: Path) -> None:
    spills = [(tmp_path / name, count) for name, count in (("a", 3), ("b", 0), ("c", 10), ("d", 4))]
    form = ShardFormat(4, "int32", None, ())
    _, tasks = plan_packing(spills, "uint16", 4, form, tmp_path)
    found = [one for task in tasks for one in task.stretches]
    assert [(one.path.name, one.start, one.tokens) for one in found] == [
        ("a", 0, 3),
        ("c", 0, 10),
        ("d", 0, 3),
    ]


def test_names_are_those_of_streaming() -> None:
    ensure_torchvision_imports()
    from streaming.base.compression import get_compressions
    from streaming.base.hashing import get_hashes

    assert set(known_hashes()) == get_hashes()
    for name in get_compressions():
        assert check_compression(name) == name
        if name != "br":  # its default is the slowest level
            assert decompress(name, compress(name, b"some bytes " * 100)) == b"some bytes " * 100
    for wrong in ("zstd:0", "zstd:23", "snappy:1", "zstd:", "zst", "gz:01"):
        with pytest.raises(InputError, match="compression"):
            check_compression(wrong)
    assert check_hashes(["xxh3_64", "md5", "md5"]) == ["md5", "xxh3_64"]
    assert check_hashes([]) == ["xxh3_64"]
    with pytest.raises(InputError, match="hash 'xxh3' is not known; did you mean"):
        check_hashes(["xxh3"])

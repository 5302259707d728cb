"""Counting tokens from an MDS index, without Streaming."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mixplan.documents.mds_index import MdsCount, count_tokens
from mixplan.errors import InputError


def shard(samples: int, **columns: str) -> dict[str, Any]:
    return {
        "version": 2,
        "format": "mds",
        "samples": samples,
        "column_names": list(columns),
        "column_encodings": list(columns.values()),
    }


def folder_with(path: Path, shards: list[Any], version: int = 2) -> Path:
    path.mkdir(exist_ok=True)
    (path / "index.json").write_text(json.dumps({"version": version, "shards": shards}))
    return path


def test_counts_all_shards(tmp_path: Path) -> None:
    folder = folder_with(
        tmp_path,
        [shard(7, tokens="ndarray:int32:16", id="int"), shard(3, tokens="ndarray:int32:16", id="int")],
    )
    assert count_tokens(folder) == MdsCount(10, 16, 160, "tokens", "int32")


@pytest.mark.parametrize(
    ("columns", "column"),
    [
        ({"a": "ndarray:int64:4", "tokens": "ndarray:uint16:8"}, "tokens"),
        ({"a": "ndarray:int64:4", "input_ids": "ndarray:uint16:8"}, "input_ids"),
        ({"text": "str", "anything": "ndarray:uint16:8"}, "anything"),
    ],
)
def test_finds_the_token_column(tmp_path: Path, columns: dict[str, str], column: str) -> None:
    counted = count_tokens(folder_with(tmp_path, [shard(2, **columns)]))
    assert (counted.column, counted.sequence_length, counted.tokens) == (column, 8, 16)


@pytest.mark.parametrize(
    ("shards", "version", "message"),
    [
        ([], 2, "lists no shards"),
        ([shard(2, tokens="ndarray:int32:8")], 1, "version 2"),
        ([{"format": "json", "samples": 3}], 2, "shard 0"),
        ([shard(2, tokens="ndarray:int32")], 2, "no column holds tokens of a fixed length"),
        ([shard(2, text="str")], 2, "text (str)"),
        ([shard(2, weights="ndarray:float32:8")], 2, "no column holds tokens"),
        ([shard(2, a="ndarray:int32:8", b="ndarray:int32:8")], 2, "no column holds tokens"),
        ([shard(2, tokens="ndarray:int32:8"), shard(2, tokens="ndarray:int32:9")], 2, "do not agree"),
        ([shard(0, tokens="ndarray:int32:8")], 2, "holds no samples"),
    ],
)
def test_what_cannot_be_counted_is_said(
    tmp_path: Path, shards: list[Any], version: int, message: str
) -> None:
    with pytest.raises(InputError, match="(?s).*" + message.replace("(", r"\(").replace(")", r"\)")):
        count_tokens(folder_with(tmp_path, shards, version))


def test_missing_or_broken_index(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        count_tokens(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"holds no index\.json"):
        count_tokens(tmp_path)
    (tmp_path / "index.json").write_text('{"version": 2, "sha')
    with pytest.raises(InputError, match="not JSON"):
        count_tokens(tmp_path)

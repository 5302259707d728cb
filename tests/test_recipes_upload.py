"""build to an object store: whole, index last, continued, and read back by Streaming."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from recipes_making import LENGTH, write_plan, write_recipe, write_text

from mixplan.compat import ensure_torchvision_imports
from mixplan.errors import InputError
from mixplan.recipes import uploading
from mixplan.recipes.building import build

REMOTE = "s3://bucket/team/web"
pytestmark = pytest.mark.slow  # the store's libraries take seconds to start


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    running = ThreadedMotoServer(port=0)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def store(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    import boto3

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("S3_ENDPOINT_URL", server)
    client = boto3.client("s3", endpoint_url=server)
    client.create_bucket(Bucket="bucket")
    yield client
    for one in client.list_objects_v2(Bucket="bucket").get("Contents", []):
        client.delete_object(Bucket="bucket", Key=one["Key"])
    client.delete_bucket(Bucket="bucket")


def keys(store: Any) -> dict[str, str]:
    listed = store.list_objects_v2(Bucket="bucket").get("Contents", [])
    return {one["Key"].removeprefix("team/web/"): one["ETag"] for one in listed}


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    write_text(tmp_path / "text", 8)
    return write_plan(tmp_path, {"web": {"text": ["text"], "mds": REMOTE}})


def test_what_is_built_is_uploaded_and_kept(store: Any, plan: Path, tmp_path: Path) -> None:
    (built,) = build(plan)
    assert built.uploaded == REMOTE and built.folder == tmp_path / "mds-local" / "web"
    assert set(keys(store)) == {path.name for path in built.folder.iterdir()}
    for path in built.folder.iterdir():
        body = store.get_object(Bucket="bucket", Key=f"team/web/{path.name}")["Body"].read()
        assert body == path.read_bytes()
    (again,) = build(plan)
    assert again.skipped


def test_an_upload_that_was_cut_short_goes_on(
    store: Any, plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure_torchvision_imports()
    from streaming.base.storage.upload import S3Uploader

    sent: list[str] = []
    send = S3Uploader.upload_file

    def failing(self: Any, name: str) -> None:
        if len(sent) == 5:
            raise OSError("the line is dead")
        sent.append(name)
        send(self, name)

    monkeypatch.setattr(S3Uploader, "upload_file", failing)
    with pytest.raises(InputError, match=r"uploading failed \(OSError: the line is dead\).*same command"):
        build(plan)
    assert "index.json" not in keys(store) and len(keys(store)) == 5
    store.put_object(Bucket="bucket", Key=f"team/web/{sent[0]}", Body=b"half")
    before = set(sent[1:])

    def watched(self: Any, name: str) -> None:
        sent.append(name)
        send(self, name)

    sent.clear()
    monkeypatch.setattr(S3Uploader, "upload_file", watched)
    (built,) = build(plan)
    assert set(keys(store)) == {path.name for path in built.folder.iterdir()}
    assert sent[-1] == "index.json" and not before & set(sent)
    assert len(sent) == len(keys(store)) - 4


@pytest.mark.parametrize("lists", [True, False])
def test_another_build_is_never_replaced(
    store: Any, plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lists: bool
) -> None:
    if not lists:  # as with stores of other kinds
        monkeypatch.setattr(uploading, "_sizes", lambda *_: None)
    build(plan)
    there = keys(store)
    other = tmp_path / "other"
    write_text(other / "text", 8, seed=1)
    with pytest.raises(InputError, match="s3://bucket/team/web holds another build"):
        build(write_plan(other, {"web": {"text": ["text"], "mds": REMOTE}}))
    assert keys(store) == there
    assert build(plan)[0].skipped and set(keys(store)) == set(there)


def test_a_store_that_cannot_be_written_to_is_told_before_work(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text(tmp_path / "text", 40)
    for remote, said in (
        ("s3://absent/web", "s3://absent/web cannot be written to .*Not Found.*create the bucket"),
        ("ftp://host/web", "Streaming uploads to .*s3.*, not to ftp"),
    ):
        with pytest.raises(InputError, match=said):
            build(write_plan(tmp_path, {"web": {"text": ["text"], "mds": remote}}))
    assert not (tmp_path / "mds-local").exists()


def test_the_emitted_mixture_reads_from_the_store(store: Any, plan: Path, tmp_path: Path) -> None:
    from mixplan.documents.loading import load
    from mixplan.documents.mixture import Mixture
    from mixplan.recipes.emitting import emit

    ensure_torchvision_imports()
    from streaming import Stream, StreamingDataset

    build(plan)
    (tmp_path / "mds").mkdir()
    (tmp_path / "mds" / "web").symlink_to(tmp_path / "mds-local" / "web")
    recipe = write_recipe(tmp_path, {"web": 6})
    recipe.write_text(recipe.read_text().replace("mds/web", REMOTE))
    emit(recipe, tmp_path / "out")
    mixture = load(tmp_path / "out" / "streams.yaml", Mixture)
    stream = mixture.streams["web"]
    assert stream.remote == REMOTE
    dataset = StreamingDataset(
        streams=[Stream(remote=stream.remote, local=str(tmp_path / "cache"), choose=stream.choose)],
        batch_size=2,
        shuffle=False,
    )
    read = [sample["tokens"] for sample in dataset]
    assert len(read) == 6 and all(len(one) == LENGTH for one in read)

"""emit over an object store: the index comes by Streaming's own client, and proves the order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from recipes_making import LENGTH, recipe_data
from recipes_orders import write_index

from mixplan.documents.loading import load
from mixplan.documents.mixture import Mixture
from mixplan.errors import InputError
from mixplan.recipes.emitting import emit
from mixplan.recipes.indexes import NotReached, local_index, remote_index
from mixplan.recipes.written import Options

SHARDS = {"web": [50] * 40, "rare": [2] * 20}
CHOOSE = {"web": 1480, "rare": 120}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An S3 store with the indexes in it, s3://mixtures/NAME; the folder has them too."""
    import boto3
    from moto.server import ThreadedMotoServer

    folder = tmp_path_factory.mktemp("store")
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("S3_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        client = boto3.client("s3", endpoint_url=f"http://{host}:{port}")
        client.create_bucket(Bucket="mixtures")
        for name, sizes in SHARDS.items():
            write_index(folder / "mds" / name, sizes, LENGTH)
            client.upload_file(str(folder / "mds" / name / "index.json"), "mixtures", f"{name}/index.json")
        client.put_object(Bucket="mixtures", Key="broken/index.json", Body=b"{")
        yield folder
    server.stop()


def recipe(store: Path, folder: Path, remote: tuple[str, ...] = ("web", "rare")) -> Path:
    data = recipe_data(store, CHOOSE, ("rare",))
    for source in data["sources"]:
        name = source["name"]
        source["mds"] = f"s3://mixtures/{name}" if name in remote else str(store / "mds" / name)
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def test_the_index_is_the_same_from_afar(store: Path) -> None:
    assert remote_index("s3://mixtures/rare") == local_index(store / "mds" / "rare")
    with pytest.raises(NotReached, match=r"s3://mixtures/none/index\.json could not be read"):
        remote_index("s3://mixtures/none")
    with pytest.raises(InputError, match=r"s3://mixtures/broken/index\.json: not JSON"):
        remote_index("s3://mixtures/broken")


def test_remote_sources_are_proven_even_and_fit_the_cache(store: Path, tmp_path: Path) -> None:
    local = emit(recipe(store, tmp_path, ()), tmp_path / "local")
    emitted = emit(recipe(store, tmp_path), tmp_path / "out")
    assert emitted.measured["rare"] == local.measured["rare"] and emitted.measured["even"]
    assert emitted.fingerprint == local.fingerprint  # the same shards, wherever they lie
    limited = emit(
        recipe(store, tmp_path), tmp_path / "limited", options=Options(cache_limit=90_000, nodes=2)
    )
    dataset = load(tmp_path / "limited" / "streams.yaml", Mixture).dataset
    assert dataset.cache_limit == 90_000 and limited.measured["footprint"]["peak_bytes"] < 90_000
    assert limited.measured["rare"]["rare"]["cv_ratio"] <= 1.3


def test_a_damaged_index_is_refused_an_unreachable_one_said(store: Path, tmp_path: Path) -> None:
    path = recipe(store, tmp_path)
    path.write_text(path.read_text().replace("s3://mixtures/web", "s3://mixtures/broken"))
    with pytest.raises(InputError, match=r"source 'web': s3://mixtures/broken/index\.json: not JSON"):
        emit(path, tmp_path / "out")
    path.write_text(path.read_text().replace("s3://mixtures/broken", "s3://mixtures/none"))
    emitted = emit(path, tmp_path / "out", options=Options(cache_limit=90_000))
    assert any("the index of web could not be read; --cache-limit was not used" in n for n in emitted.notes)
    assert emitted.measured == {}


def test_streaming_is_never_told_to_delete_what_it_cannot_fetch_again(store: Path, tmp_path: Path) -> None:
    emitted = emit(
        recipe(store, tmp_path, ("web",)), tmp_path / "out", options=Options(cache_limit=90_000, nodes=2)
    )
    assert load(tmp_path / "out" / "streams.yaml", Mixture).dataset.cache_limit is None
    assert any("rare lie here without a remote copy" in note for note in emitted.notes)


def test_remote_data_must_be_what_the_recipe_was_computed_for(store: Path, tmp_path: Path) -> None:
    path = recipe(store, tmp_path)
    data = yaml.safe_load(path.read_text())
    data["sources"][1]["max_epochs"] = 2.0
    data["sources"][0]["tokens_available"] = 64_000
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(InputError) as caught:
        emit(path, tmp_path / "out")
    assert len(caught.value.problems) == 2
    assert not (tmp_path / "out").exists()

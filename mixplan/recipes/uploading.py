"""A built source goes to an object store, through Streaming's own uploader; its index last.

A reader that finds the index finds everything: until then a source that is half uploaded looks absent.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from mixplan.compat import ensure_torchvision_imports
from mixplan.documents.mds_index import INDEX, read_index
from mixplan.documents.source_build import SOURCE
from mixplan.errors import InputError

_AT_ONCE = 8
Progress = Callable[[int, int], None]


def check_remote(remote: str) -> None:
    """Can a source be uploaded there?

    Raises:
        InputError: the store is not one of Streaming's, there are no credentials, or no such bucket.
    """
    with tempfile.TemporaryDirectory() as empty:
        _uploader(remote, Path(empty))


def upload(folder: Path, remote: str, bar: Progress) -> int:
    """Upload the shards of a folder, then source.json, then the index.

    On S3 and what speaks its language a file that is there with the right size is not uploaded again.

    Args:
        folder: the built source.
        remote: where to.
        bar: told how many bytes of all are there.

    Returns:
        How many files were uploaded.

    Raises:
        InputError: another build is there, or uploading failed; then the index is not there.
    """
    uploader = _uploader(remote, folder)
    names = [(one["zip_data"] or one["raw_data"])["basename"] for one in read_index(folder)] + [SOURCE]
    there = _sizes(uploader, remote)
    _refuse_other(remote, folder, there)
    there = there or {}
    total = sum((folder / name).stat().st_size for name in [*names, INDEX])
    done = sent = 0
    try:
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            missing = [name for name in names if there.get(name) != (folder / name).stat().st_size]
            done = total - sum((folder / name).stat().st_size for name in [*missing, INDEX])
            bar(done, total)
            for name in threads.map(lambda name: (uploader.upload_file(name), name)[1], missing):
                sent += 1
                done += (folder / name).stat().st_size
                bar(done, total)
        if INDEX not in there:
            uploader.upload_file(INDEX)
            sent += 1
        bar(total, total)
    except Exception as error:  # of each store's library
        raise InputError(
            f"{remote}: uploading failed ({_said(error)}); {folder} is whole: the same command continues"
        ) from None
    return sent


def _uploader(remote: str, folder: Path) -> Any:
    ensure_torchvision_imports()
    from streaming.base.storage.upload import UPLOADERS, CloudUploader

    scheme = urlparse(remote).scheme
    if scheme not in UPLOADERS:
        known = ", ".join(sorted(name for name in UPLOADERS if name))
        raise InputError(f"{remote}: Streaming uploads to {known}, not to {scheme}; build locally")
    try:
        return CloudUploader.get((str(folder), remote), keep_local=True, exist_ok=True)
    except (
        Exception
    ) as error:  # of each store's library: no credentials, no bucket, no network, not installed
        raise InputError(
            f"{remote} cannot be written to ({_said(error)}); set the credentials that Streaming's "
            f"documentation names for {scheme}, and create the bucket; or give a local `mds`, and upload "
            "the folder yourself"
        ) from None


def _sizes(uploader: Any, remote: str) -> dict[str, int] | None:
    """Bytes of each file that is there; None where the store neither is S3 nor speaks its language."""
    client = getattr(uploader, "s3", None)
    if client is None:
        return None
    place = urlparse(remote)
    prefix = place.path.strip("/") + "/" if place.path.strip("/") else ""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=place.netloc, Prefix=prefix)
    return {
        one["Key"].removeprefix(prefix): one["Size"] for page in pages for one in page.get("Contents", [])
    }


def _refuse_other(remote: str, folder: Path, there: dict[str, int] | None) -> None:
    """Never replace another build."""
    from streaming.base.storage.download import CloudDownloader

    if there is not None and INDEX not in there:
        return
    with tempfile.TemporaryDirectory() as empty:
        copy = Path(empty) / INDEX
        try:
            CloudDownloader.direct_download(f"{remote.rstrip('/')}/{INDEX}", str(copy))
        except Exception as error:  # of each store's library, most of which say it in these words
            if re.search(r"not.?found|\b404\b", _said(error), re.IGNORECASE):
                return
            raise InputError(
                f"{remote}: whether another build is there could not be seen ({_said(error)}); nothing was "
                "uploaded: the same command tries again"
            ) from None
        if copy.read_bytes() != (folder / INDEX).read_bytes():
            raise InputError(
                f"{remote} holds another build; give the source another `mds`, or remove what is there"
            )


def _said(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}"

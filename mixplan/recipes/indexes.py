"""What the index of a source says, whether the source lies here or behind a URL."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

from mixplan.documents.mds_index import INDEX, MdsCount, count_tokens, read_index
from mixplan.errors import InputError
from mixplan.recipes.replay import import_streaming

_TIMEOUT_SECONDS = 60.0


class NotReached(InputError):
    """The store cannot be asked from here, or does not answer; what is in it is not known."""


@dataclass(frozen=True)
class SourceIndex:
    """The shards of one source."""

    samples: list[int]
    """Of each shard."""
    shard_bytes: list[int]
    """Of each shard as it is read, decompressed."""
    index_bytes: int
    sha256: str
    """Of index.json."""
    counted: MdsCount


def local_index(folder: Path) -> SourceIndex:
    """The index of an MDS folder.

    Raises:
        InputError: as `count_tokens`; or a shard's size is not stated.
    """
    folder = Path(folder)
    shards = read_index(folder)
    content = (folder / INDEX).read_bytes()
    try:
        sizes = [int(shard["raw_data"]["bytes"]) for shard in shards]
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"{folder / INDEX}: a shard's raw_data.bytes is missing; build the source again"
        ) from None
    return SourceIndex(
        samples=[int(shard["samples"]) for shard in shards],
        shard_bytes=sizes,
        index_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        counted=count_tokens(folder),
    )


def remote_index(url: str) -> SourceIndex:
    """The same behind a URL, by Streaming's own downloader.

    Raises:
        NotReached: it cannot be fetched, with the reason.
        InputError: as `local_index`.
    """
    import_streaming()
    from streaming.base.storage import CloudDownloader

    with tempfile.TemporaryDirectory(prefix="mixplan-index-") as scratch:
        place = Path(scratch) / "source"
        remote = f"{url.rstrip('/')}/{INDEX}"
        try:
            CloudDownloader.direct_download(remote, str(place / INDEX), _TIMEOUT_SECONDS)
        except Exception as error:  # every store's client has errors of its own
            reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
            raise NotReached(f"{remote} could not be read ({reason[0]})") from None
        try:
            return local_index(place)
        except InputError as error:
            raise InputError([problem.replace(str(place), url) for problem in error.problems]) from None

"""Hugging Face datasets: a folder that `save_to_disk` wrote, or one by name; both are Arrow files on disk."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixplan.documents.suggest import did_you_mean
from mixplan.errors import InputError
from mixplan.recipes.parquet import column_kind

_ROWS_AT_ONCE = 1024
_SAVED = ("state.json", "dataset_dict.json")
# What a dataset may be called; anything else can only be a folder.
_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)?", re.ASCII)
_REACHED_WITHIN_SECONDS = 10.0


@dataclass(frozen=True)
class ArrowFile:
    """One file of a dataset."""

    path: Path
    rows: int
    bytes: int
    holds: str
    """text or tokens: what the column holds."""


def arrow_files(
    entry: str, subset: str | None, split: str | None, column: str, base: Path
) -> list[ArrowFile]:
    """The Arrow files of a dataset, in its order. One that is given by name is fetched into the cache first.

    Args:
        entry: folder, relative to `base`, or name.
        subset: of the dataset, where it has several.
        split: likewise.
        column: that is to be read.
        base: folder that a relative entry starts from.

    Raises:
        InputError: there is no such dataset, split or column, or no network to fetch it.
    """
    data = _opened(entry, subset, split, base)
    files = [Path(one["filename"]) for one in data.cache_files]
    if not files:
        raise InputError(f"dataset {entry!r} holds no rows, or none on disk")
    found = []
    for path in files:
        with _stream(path) as reader:
            holds = column_kind(reader.schema, column, f"dataset {entry!r}")
            rows = sum(batch.num_rows for batch in reader)
        if rows:
            found.append(ArrowFile(path, rows, path.stat().st_size, holds))
    if sum(one.rows for one in found) != len(data):
        raise InputError(
            f"dataset {entry!r}: split {split!r} is a part of its files, which hold "
            f"{sum(one.rows for one in found):,} rows, not {len(data):,}; save it with `save_to_disk`, and "
            "name that folder"
        )
    return found


def is_fetched(entry: str, base: Path) -> bool:
    """Whether an entry is looked for by name, in the network or in the cache: no such folder is here."""
    return not (base / Path(entry).expanduser()).is_dir() and _NAME.fullmatch(entry) is not None


def arrow_rows(path: Path, column: str, start: int, stop: int) -> Iterator[Any]:
    """Arrow arrays of the rows `start` … `stop` − 1 of a column, some rows at a time.

    Raises:
        InputError: the file is damaged.
    """
    at = 0
    with _stream(path) as reader:
        for batch in reader:
            low, high = max(start - at, 0), min(stop - at, batch.num_rows)
            for first in range(low, high, _ROWS_AT_ONCE):
                yield batch.column(column).slice(first, min(_ROWS_AT_ONCE, high - first))
            at += batch.num_rows
            if at >= stop:
                return


@contextmanager
def _stream(path: Path) -> Iterator[Any]:
    import pyarrow

    try:
        with pyarrow.memory_map(str(path)) as file:
            yield pyarrow.ipc.open_stream(file)
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"{path}: cannot be read as Arrow ({str(error).splitlines()[0]})") from None


def _opened(entry: str, subset: str | None, split: str | None, base: Path) -> Any:
    place = base / Path(entry).expanduser()
    if not place.is_dir() and not is_fetched(entry, base):
        raise InputError(
            f"dataset {entry!r} cannot be opened: there is no such folder ({place}), and no dataset is "
            "called so, as names are NAME or OWNER/NAME; name a folder that `save_to_disk` wrote"
        )
    import datasets

    shown = datasets.utils.logging.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        if place.is_dir() and any((place / name).is_file() for name in _SAVED):
            data: Any = datasets.load_from_disk(str(place))
        elif place.is_dir():
            data = datasets.load_dataset(str(place), subset, split=split)
        else:
            with _without_waiting(entry):
                data = datasets.load_dataset(entry, subset, split=split)
    except Exception as error:  # of requests, huggingface_hub and datasets, and of each builder
        said = " ".join(str(error).split())
        raise InputError(
            f"dataset {entry!r} cannot be opened: {type(error).__name__}: {said[:200]}; there is no such "
            f"folder ({place}), and a dataset by name needs network or a filled cache: check name, subset "
            "and split, or name a folder that `save_to_disk` wrote"
            if not place.is_dir()
            else f"dataset {entry!r} cannot be opened from {place}: {type(error).__name__}: {said[:200]}"
        ) from None
    finally:
        if shown:
            datasets.enable_progress_bars()
    if not isinstance(data, dict):
        saved = None if data.split is None else str(data.split)
        if split is not None and saved is not None and split != saved:
            raise InputError(f"dataset {entry!r} is the split {saved!r}, not {split!r}; correct data.split")
        return data
    names = list(data)
    if split is None and len(names) == 1:
        return data[names[0]]
    if split not in names:
        raise InputError(
            f"dataset {entry!r} has the splits {', '.join(names)}"
            + (f", none called {split!r}{did_you_mean(split, names)}" if split else "")
            + "; say which with data.split"
        )
    return data[split]


@contextmanager
def _without_waiting(entry: str) -> Iterator[None]:
    """Where the network does not answer only the cache is asked: `datasets` would try for half a minute."""
    import datasets
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import logging

    offline, level = datasets.config.HF_HUB_OFFLINE, logging.get_verbosity()
    try:
        HfApi(endpoint=datasets.config.HF_ENDPOINT).dataset_info(entry, timeout=_REACHED_WITHIN_SECONDS)
        answered = True
    except HfHubHTTPError as error:  # "no such dataset" is an answer, which `datasets` puts into words
        answered = error.response is not None and error.response.status_code < 500
    except Exception:  # of requests or httpx, by the version
        answered = False
    try:
        logging.set_verbosity_error()  # no line for every request that is repeated
        datasets.config.HF_HUB_OFFLINE = offline or not answered
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = offline
        logging.set_verbosity(level)

"""Is there room on the disks?"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from mixplan.recipes.folders import work_folder
from mixplan.units import byte_size


def no_room(targets: Sequence[tuple[Path, int, int]]) -> list[str]:
    """Disks on which what is to be built does not fit.

    Args:
        targets: (folder, bytes of its unfinished work, bytes that stay). Unfinished work goes when its folder
            is whole, so that of several on a disk only the most counts; what an interrupted build left of it
            is on the disk already.
    """
    needed: dict[int, tuple[Path, int, int]] = {}
    for folder, unfinished, stays in targets:
        place = next(one for one in (folder, *folder.parents) if one.is_dir())
        work = work_folder(folder)
        there = sum(path.stat().st_size for path in work.rglob("*") if path.is_file()) if work.is_dir() else 0
        disk = place.stat().st_dev
        _, most, sum_stays = needed.get(disk, (place, 0, 0))
        needed[disk] = (place, max(most, unfinished - there), sum_stays + stays)
    return [text for place, most, stays in needed.values() for text in does_not_fit(place, most + stays)]


def does_not_fit(place: Path, needed: int) -> list[str]:
    """The problem of a disk with fewer bytes free than are needed; nothing where they fit."""
    free = shutil.disk_usage(place).free
    if needed <= free:
        return []
    return [
        f"{place}: at least {byte_size(needed)} are needed on this disk, {byte_size(free)} are free; make "
        "room, or give the sources another `mds`"
    ]

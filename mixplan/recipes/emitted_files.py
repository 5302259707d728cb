"""The small files that emit writes into a folder: which are its own, and which belong to another mixture.

emitted.json lists them by format. A folder may hold several formats of one recipe; a file that would change,
one that its format no longer has, or one that a trainer could take instead, belongs to another mixture, which
a run may be training on.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePath

from mixplan.documents.atomic import refuse_foreign, write_json, write_text
from mixplan.errors import InputError
from mixplan.recipes.olmo_core import MARKER
from mixplan.recipes.phases import PHASES
from mixplan.recipes.streams import STREAMS
from mixplan.recipes.weights import WEIGHTS

EMITTED = "emitted.json"
# Two mixtures of the same samples in different orders: olmo_core_loader.py and `verify` would take either.
_INSTEAD = {STREAMS: MARKER, MARKER: STREAMS}


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds something that emit did not write.

    Raises:
        InputError: it does, or it is a file.
    """
    refuse_foreign(folder, [EMITTED, STREAMS, WEIGHTS, PHASES], "emit")


def mark(folder: Path) -> None:
    """Mark a folder as emit's own, so that data in it can be kept when something fails before its files are
    written."""
    if not (folder / EMITTED).exists():
        write_json(folder / EMITTED, {"schema_version": 1, "files": {}})


def check_texts(folder: Path, format: str, texts: dict[str, str], force: bool) -> list[str] | None:
    """Is there another mixture?

    Args:
        folder: as `check_folder` lets pass.
        format: of the mixture.
        texts: content by name, relative to the folder.
        force: replace another mixture.

    Returns:
        With `force`, the files of another mixture that have to go; empty (None) where there is no other.

    Raises:
        InputError: another mixture is there and `force` is not given.
    """
    before = _listed(folder)
    changed = [name for name, text in texts.items() if _differs(folder / name, text)]
    dropped = {name for name in before.get(format, []) if name not in texts}
    dropped |= {str(PurePath(name).with_name(other)) for name in texts if (other := _instead(name))}
    dropped = {name for name in dropped if (folder / name).exists()}
    if not changed and not dropped:
        return None
    if not force:
        gone = sorted(dropped)
        would = [f"{', '.join(names)} would {what}" for names, what in _said(changed, gone) if names]
        raise InputError(
            f"{folder} holds another mixture ({'; '.join(would)}), which a run may be training on: give "
            "another folder with -o, or add --force"
        )
    return sorted(({name for names in before.values() for name in names} | dropped) - set(texts))


def write_texts(folder: Path, format: str, texts: dict[str, str], force: bool) -> None:
    """Write a mixture's files; with `force`, those of another mixture go.

    Args, raises: as `check_texts`; then nothing was written.
    """
    stale = check_texts(folder, format, texts, force)
    for name in stale or []:
        _remove(folder, name)
    kept = _listed(folder) if stale is None else {}
    write_json(folder / EMITTED, {"schema_version": 1, "files": {**kept, format: sorted(texts)}})
    for name, text in texts.items():
        write_text(folder / name, text)


def _instead(name: str) -> str | None:
    return _INSTEAD.get(PurePath(name).name)


def _said(changed: list[str], dropped: list[str]) -> list[tuple[list[str], str]]:
    return [(changed, "change"), (dropped, "go")]


def _listed(folder: Path) -> dict[str, list[str]]:
    """What emitted.json says; names that lead out of the folder are not emit's.

    Raises:
        InputError: it is broken.
    """
    path = folder / EMITTED
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))["files"]
        return {
            str(format): [name for name in names if _inside(name)] for format, names in dict(listed).items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{path} is broken: give another folder with -o, or delete it") from None


def _inside(name: str) -> bool:
    return not PurePath(name).is_absolute() and ".." not in PurePath(name).parts


def _differs(path: Path, text: str) -> bool:
    return path.exists() and path.read_bytes() != text.encode("utf-8")


def _remove(folder: Path, name: str) -> None:
    """A file, and the folders that this leaves empty."""
    path = folder / name
    path.unlink(missing_ok=True)
    for above in path.parents:
        if above == folder or not above.is_dir() or any(above.iterdir()):
            return
        above.rmdir()

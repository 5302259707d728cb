"""Where a study is kept: a journal file, or a database by its URL. Optuna and optuna-dashboard read both."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from mixplan.documents.calibration import Calibration
from mixplan.documents.plan import Plan
from mixplan.errors import InputError
from mixplan.recommend.problem import Problem

JOURNALS = (".log", ".journal")
_KEY = "mixplan"
_GRACE = 5  # seconds that a lock is respected; writing a batch takes milliseconds


@dataclass
class Store:
    """One study in one storage, recognised by what its answer depends on."""

    place: str
    """A file that ends as JOURNALS, or a URL as sqlite:///study.db."""
    name: str
    identity: dict[str, Any]
    """What the trials depend on, in words and hashes; a study of anything else is refused."""
    metrics: list[str]
    """Names of the values, for readers."""
    _study: optuna.Study | None = None
    _written: int = 0

    def open(self, directions: list[str]) -> list[FrozenTrial]:
        """The trials that are there, in order; the study is made if there is none.

        Raises:
            InputError: the place cannot be used, or holds a study of something else.
        """
        try:
            storage = open_storage(self.place)
            study = optuna.create_study(
                storage=storage, study_name=self.name, directions=directions, load_if_exists=True
            )
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"--storage {self.place}: Optuna cannot use it ({error}); give another file or URL"
            ) from error
        trials = study.get_trials(deepcopy=False)
        known = study.user_attrs.get(_KEY)
        if known is None and not trials:
            study.set_metric_names(self.metrics)
            study.set_user_attr(_KEY, self.identity)
        elif known != self.identity:
            self._refuse(known)
        self._study, self._written = study, len(trials)
        return trials

    def add(self, trials: list[FrozenTrial]) -> None:
        """Append finished trials.

        Raises:
            InputError: another command has written to the study since it was opened.
        """
        assert self._study is not None  # opened
        if len(self._study.get_trials(deepcopy=False)) != self._written:
            raise InputError(
                f"--storage {self.place}: another command writes to the study {self.name!r}; let it end, "
                "then run again, and use --workers for more processes"
            )
        self._study.add_trials(trials)
        self._written += len(trials)

    def _refuse(self, known: object) -> None:
        have = known if isinstance(known, dict) else {}
        other = [key for key, value in self.identity.items() if have.get(key) != value]
        raise InputError(
            f"--storage {self.place} holds the study {self.name!r} of another "
            f"{', '.join(other) or 'program'}; a study goes on with what it was begun with: give another "
            "--storage, or delete that one"
        )


def open_storage(place: str) -> optuna.storages.BaseStorage:
    """Optuna's storage behind a file or a URL.

    Raises:
        InputError: the name is neither, its folder is missing, or SQLAlchemy is.
    """
    if "://" in place:
        try:
            return optuna.storages.RDBStorage(place)
        except ImportError:
            raise InputError(
                f"--storage {place}: a database needs SQLAlchemy; install it, or give a file ending in .log"
            ) from None
    path = Path(place)
    if path.suffix not in JOURNALS:
        raise InputError(
            f"--storage {place}: give a journal file that ends in {' or '.join(JOURNALS)}, or a URL such as "
            "sqlite:///study.db"
        )
    if not path.parent.is_dir():
        raise InputError(f"--storage {place}: there is no folder {path.parent}; make it first")
    if path.is_dir():
        raise InputError(f"--storage {place} is a folder; a file is needed")
    _mend(path)
    # A process that was killed while it wrote leaves its lock; Optuna would wait 30 s for it.
    lock = optuna.storages.journal.JournalFileSymlinkLock(str(path), grace_period=_GRACE)
    backend = optuna.storages.journal.JournalFileBackend(str(path), lock_obj=lock)
    return optuna.storages.JournalStorage(backend)


def _mend(path: Path) -> None:
    """Cut the last line of a journal off where a killed process left it unfinished: what is appended to it
    would be lost with it.

    Raises:
        InputError: the file is no journal.
    """
    if not path.exists():
        return
    with path.open("r+b") as file:
        content = file.read()
        first, ended, _ = content.partition(b"\n")
        if ended and not first.startswith(b'{"op_code":'):
            raise InputError(f"--storage {path} is no journal of Optuna's; give another file")
        whole = content.rfind(b"\n") + 1
        if ended and whole < len(content):
            file.truncate(whole)


def store_of(
    place: str, plan: Plan, problem: Problem, calibration: Calibration | None, seed: int, mode: str = "best"
) -> Store:
    """The store of one plan's search. It goes on when only `search.trials` changes: what a trial tries does
    not depend on how many follow.

    Args:
        calibration: None where the laws come from elsewhere; then only the trials' values tell them apart.
        mode: what is searched for, "best" or "front".
    """
    settled = plan.model_copy(update={"search": plan.search.model_copy(update={"trials": 1})})
    counted = json.dumps([float(count) for count in problem.unique_tokens])
    identity = {
        "plan": _hash(settled.model_dump_json() + counted),
        "calibration": _hash(calibration.model_dump_json()) if calibration else "",
        "seed": seed,
        "version of mixplan": version("mixplan"),
        "version of optuna": optuna.__version__,
    }
    name = plan.name if mode == "best" else f"{plan.name} {mode}"
    metrics = [problem.objective] if mode == "best" else ["FLOPs", "tasks missed", "common loss"]
    return Store(place, name, identity, metrics)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()

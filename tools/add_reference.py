"""Make a measurements folder a reference calibration that ships with the package.

    python tools/add_reference.py MEASUREMENTS NAME --about ABOUT.yaml
    python tools/add_reference.py mixplan/references/NAME NAME --force      # fit again, after a law changed

ABOUT.yaml says what the tables cannot: text, licence, tokenizer, measured_on, machine, command. All else is
read from the tables. Writes mixplan/references/NAME/: the tables as .csv.gz, provenance.json, about.yaml, and
calibration.json as `mixplan fit ref:NAME` writes it.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from mixplan.documents import Table, read_measurements, save
from mixplan.documents.atomic import write_json
from mixplan.documents.base import Document
from mixplan.documents.loading import load
from mixplan.documents.measurements import ROWS, Measurements
from mixplan.documents.references import KEY, Reference
from mixplan.documents.table import write_table
from mixplan.errors import InputError
from mixplan.laws.calibration import fit_calibration

HOME = Path(__file__).resolve().parent.parent / "mixplan" / "references"
MOST_BYTES = 3_000_000
"""The package stays small: a reference is tables, not checkpoints."""


class About(Document):
    """What the tables cannot say; see `Reference`."""

    text: str
    licence: str
    tokenizer: str
    measured_on: str
    machine: str
    command: str


def main() -> None:
    """Parse and add; problems go to standard error, with exit code 2."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("measurements", type=Path)
    parser.add_argument("name")
    parser.add_argument("--about", type=Path, help="default: as the reference of that name says")
    parser.add_argument("--force", action="store_true", help="replace the reference of that name")
    given = parser.parse_args()
    try:
        folder = add(given.measurements, given.name, given.about, HOME, given.force)
    except InputError as error:
        print(*(f"error: {problem}" for problem in error.problems), sep="\n", file=sys.stderr)
        sys.exit(2)
    for path in sorted(folder.iterdir()):
        print(f"wrote {path} ({path.stat().st_size:,} bytes)")


def add(
    measurements: Path,
    name: str,
    about: Path | None,
    home: Path,
    force: bool = False,
    draws: int = 200,
) -> Path:
    """Write home/name and return it; whole or not at all.

    Raises:
        InputError: the tables or about.yaml break their rules, the reference exists, or it is too large.
    """
    target = home / name
    if target.exists() and not force:
        raise InputError(f"{target} exists; --force replaces it")
    if about is None and not target.exists():
        raise InputError(
            f"a new reference needs --about; {Path(__file__).name} --help says what stands there"
        )
    said = load(about, About) if about else _said(load(target / "about.yaml", Reference))
    measured = read_measurements(measurements)
    reference = describe(measured, name, said)
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home, prefix=f".{name}-") as temporary:
        part = Path(temporary) / name
        part.mkdir()
        for table in ROWS:
            rows: Table | None = getattr(measured, table)
            if rows is not None:
                write_table(rows, part / f"{table}.csv.gz")
        write_json(part / "provenance.json", {**measured.provenance, KEY: reference.model_dump(mode="json")})
        save(reference, part / "about.yaml", "What this reference calibration was measured on.")
        again = read_measurements(part)
        fitted = fit_calibration(again, learned_skill=again.learned_skill, draws=draws, seed=0)
        save(fitted, part / "calibration.json")
        size = sum(path.stat().st_size for path in part.iterdir())
        if size > MOST_BYTES:
            raise InputError(f"{name}: {size:,} bytes, more than the {MOST_BYTES:,} that may ship; drop rows")
        if target.exists():
            shutil.rmtree(target)
        part.rename(target)
    return target


def _said(reference: Reference) -> About:
    return About.model_validate({key: getattr(reference, key) for key in About.model_fields})


def describe(measured: Measurements, name: str, about: About) -> Reference:
    """about.yaml of the reference: what the person says and what the tables and their provenance say."""
    learning, provenance = measured.learning, measured.provenance
    corpus_tokens = provenance.get("corpus_train_tokens")
    if not isinstance(corpus_tokens, int):
        raise InputError("provenance.json does not say corpus_train_tokens; `mixplan collect` writes it")
    kinds: dict[str, set[float]] = {}
    for family, complexity in zip(learning["family"], learning["complexity"], strict=True):
        kinds.setdefault(str(family), set()).add(float(complexity))
    sizes = {str(r): int(n) for r, n in zip(learning["rung"], learning["block_params"], strict=True)}
    values: dict[str, Any] = {
        **about.model_dump(mode="json"),
        "name": name,
        "corpus_tokens": corpus_tokens,
        "rungs": dict(sorted(sizes.items(), key=lambda item: item[1])),
        "tokens": ends(learning),
        "seeds": sorted({int(seed) for seed in learning["seed"]}),
        "runs": len(set(learning["run_id"])),
        "families": {family: sorted(found) for family, found in sorted(kinds.items())},
    }
    return Reference.model_validate(values)


def ends(learning: Table) -> list[int]:
    """Training tokens at which runs end, and their branches where the table marks learning-rate decays."""
    tokens, run_ids = learning["tokens"], learning["run_id"]
    found = {int(tokens[run_ids == run].max()) for run in set(run_ids)}
    if "decayed" in learning:
        found |= {int(value) for value in np.unique(tokens[learning["decayed"] == 1])}
    return sorted(found)


if __name__ == "__main__":
    main()

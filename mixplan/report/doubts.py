"""What a reader must know first: documents that do not belong together, and the warnings they carry."""

from __future__ import annotations

from mixplan.documents.calibration import Calibration
from mixplan.report.cells import Ladder
from mixplan.report.inputs import Inputs
from mixplan.report.text import kind_name, listing


def mismatches(inputs: Inputs, ladder: Ladder | None) -> list[str]:
    """Signs that calibration.json comes from other measurements, or recipe.yaml from another calibration."""
    said: list[str] = []
    calibration, recipe = inputs.calibration, inputs.recipe
    if calibration is not None and ladder is not None and inputs.measurements is not None:
        fitted = {kind_name(task.family, task.complexity) for task in calibration.tasks}
        measured = {kind.name for kind in ladder.kinds}
        if fitted != measured:
            sides = [
                (fitted - measured, "fitted but not measured"),
                (measured - fitted, "measured but not fitted"),
            ]
            listed = "; ".join(f"{how}: {listing(sorted(names))}" for names, how in sides if names)
            said.append(f"calibration.json was fitted on other measurements than these ({listed}).")
        recorded = calibration.provenance.get("tables")
        learning = recorded.get("learning") if isinstance(recorded, dict) else None
        rows = learning.get("rows") if isinstance(learning, dict) else None
        if isinstance(rows, int) and rows != len(inputs.measurements.learning):
            said.append(
                f"calibration.json was fitted on a learning table of {rows:,} rows; the one here has"
                f" {len(inputs.measurements.learning):,}: run `mixplan fit` again."
            )
    recorded = recipe.provenance.get("calibration_sha256") if recipe is not None else None
    digests = {name.rsplit("/", 1)[-1]: digest for name, digest in inputs.files}
    if calibration is not None and isinstance(recorded, str) and recorded != digests["calibration.json"]:
        said.append(
            "recipe.yaml was made with another calibration.json than the one here: run `mixplan recommend`"
            " again."
        )
    verified = inputs.verified
    if recipe is not None and verified is not None and verified.samples_expected != recipe.samples:
        said.append(
            f"verify.json is about a mixture of {verified.samples_expected:,} samples; recipe.yaml has"
            f" {recipe.samples:,}."
        )
    return said


def fit_warnings(calibration: Calibration | None) -> list[str]:
    """Warnings of the calibration and of its laws, each once."""
    if calibration is None:
        return []
    laws = [calibration.learning, calibration.retention, calibration.interference, calibration.lm_loss]
    own = [line for law in laws if law is not None for line in law.warnings]
    return list(dict.fromkeys([*calibration.warnings, *own]))

"""What travels between stages. Import from here; the modules inside may move."""

from mixplan.documents.calibration import Calibration
from mixplan.documents.calibration_spec import CalibrationSpec
from mixplan.documents.loading import load, save
from mixplan.documents.measurements import Measurements, read_measurements, write_measurements
from mixplan.documents.plan import Plan
from mixplan.documents.recipe import Recipe
from mixplan.documents.shapes import PRESETS, ModelShape
from mixplan.documents.table import Table

__all__ = [
    "PRESETS",
    "Calibration",
    "CalibrationSpec",
    "Measurements",
    "ModelShape",
    "Plan",
    "Recipe",
    "Table",
    "load",
    "read_measurements",
    "save",
    "write_measurements",
]

"""A recipe becomes data a trainer loads: `build` writes shards, `emit` the mixture, `verify` reads it back.

Streaming and torch are imported inside functions only.
"""

from mixplan.recipes.building import BuiltSource, build
from mixplan.recipes.emitting import Emitted, emit
from mixplan.recipes.verifying import How, Verification, verify

__all__ = ["BuiltSource", "Emitted", "How", "Verification", "build", "emit", "verify"]

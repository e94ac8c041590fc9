"""Lets the tests import the collection by its full name, and the generator of the documentation."""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import settings

ROOT = Path(__file__).resolve().parents[2]

# Other tests run on this machine at the same time, and no test is about time.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

sys.path[:0] = [str(ROOT / ".collections"), str(ROOT / "docs")]

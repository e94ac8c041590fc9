"""Lets the tests import the collection by its full name, and the generator of the documentation."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

sys.path[:0] = [str(ROOT / ".collections"), str(ROOT / "docs")]

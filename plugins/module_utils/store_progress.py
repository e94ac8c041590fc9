# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""How far a module of the import is, in a file that its action reads. No Ansible."""

from __future__ import annotations

import json
import os
import time

NAME = "progress.json"


class Progress:
    """Says in a file how far the module is."""

    def __init__(self, folder: str, unit: str) -> None:
        """Begin.

        Args:
            folder: of the file.
            unit: what is counted, in the plural.
        """
        self.path, self.unit = os.path.join(folder, NAME), unit
        self.step, self.begun, self.said, self.done, self.total = "", 0.0, 0.0, 0, 0

    def begin(self, step: str, total: int = 0) -> None:
        """Begin a step.

        Args:
            step: its name.
            total: how many it will do; 0 when nobody knows.
        """
        self.step, self.begun, self.done, self.total = step, time.monotonic(), 0, total
        self.say("")

    def told(self, step: str, place: str, count: int) -> None:
        """Count what is done, and say where it is."""
        if step != self.step:
            self.begin(step, self.total)
        self.done += count
        if time.monotonic() - self.said > 0.5:
            self.say(place)

    def say(self, place: str) -> None:
        """Write it down."""
        self.said = time.monotonic()
        with open(f"{self.path}.new", "w", encoding="utf-8") as file:
            counted = {"done": self.done, "total": self.total, "unit": self.unit, "seconds": self.said - self.begun}
            # The process for whoever looks after it.
            json.dump({"step": self.step, "place": place, **counted, "process": os.getpid()}, file)
        os.replace(f"{self.path}.new", self.path)

"""What the module python_environment finds in a lock, and what it does without one that it can use."""

from __future__ import annotations

import pytest
from ansible_collections.mlops.mlflow.plugins.modules import python_environment

LOCK = "urllib3==2.5.0 \\\n    --hash=sha256:aa\nuv==0.9.1 \\\n    --hash=sha256:bb \\\n    --hash=sha256:cc\nuvicorn==0.35.0 \\\n    --hash=sha256:dd\n"


@pytest.mark.parametrize(
    ("lock", "found"),
    [
        (LOCK, "uv==0.9.1 \\\n    --hash=sha256:bb \\\n    --hash=sha256:cc\n"),
        ("mlflow\nuv  # installs the rest\n", "uv  # installs the rest\n"),
        ("uvicorn==0.35.0\nuvloop==0.21.0\n", ""),
    ],
)
def test_the_installer_comes_with_its_hashes(lock: str, found: str) -> None:
    """And nothing of what stands beside it, whatever its name begins with."""
    assert python_environment.installer(lock) == found

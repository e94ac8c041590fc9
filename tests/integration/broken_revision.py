"""A migration of MLflow's that nobody can finish: put beside the others, as the one that comes after all of them.

Its way to fail is in the file beside it: an error, or a sleep in which something else goes wrong.
"""

import time
from pathlib import Path

from alembic import op

revision = "b10c4ed00000"
down_revision = "@HEAD@"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change a table, and then fail."""
    op.execute("ALTER TABLE runs ADD COLUMN half_done integer")
    op.execute("UPDATE experiments SET name = name || ' changed'")
    for _second in range(120):
        if Path("/run/mlops-test-fails").exists():
            raise RuntimeError("this migration cannot be done")
        time.sleep(1)
        op.execute("SELECT 1")


def downgrade() -> None:
    """Nobody comes here."""

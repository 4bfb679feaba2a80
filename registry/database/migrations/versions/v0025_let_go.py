"""What is needed to let go of months: how far states can be restored, and files that are moved."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(Path(__file__).with_suffix(".sql").read_text("utf-8"))


def downgrade() -> None:
    raise NotImplementedError("restore a backup: older versions take days for whole that are not")

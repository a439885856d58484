"""Jobs: the queue, what waits, what was created under a key, what webhooks have not taken yet."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """From nothing."""
    op.create_table(
        "jobs",
        sa.Column("seq", _ID, primary_key=True),
        sa.Column("uid", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("tags", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("executor", sa.Text),
        sa.Column("run", sa.BigInteger, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("begun", sa.LargeBinary),
        sa.Column("lease", sa.BigInteger),
        sa.Column("renew", sa.BigInteger),
        sa.Column("deadline", sa.BigInteger),
        sa.Column("due", sa.BigInteger),
        sa.Column("head", sa.LargeBinary, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("jobs_uid", "jobs", ["uid"], unique=True)
    op.create_index("jobs_state", "jobs", ["state", "seq"])
    _create_partial_index("jobs_lease", "jobs", "lease")
    _create_partial_index("jobs_due", "jobs", "due")
    _create_partial_index("jobs_held", "jobs", "executor", where="lease")
    op.create_table(
        "contents",
        sa.Column("seq", _ID, primary_key=True, autoincrement=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "queue",
        sa.Column("pool", sa.Text, primary_key=True),
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("priority", sa.Float, nullable=False),
    )
    op.create_index("queue_priority", "queue", ["pool", sa.text("priority DESC"), "seq"])
    op.create_index("queue_seq", "queue", ["seq"])
    op.create_table(
        "waits",
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("uid", sa.Text, primary_key=True),
    )
    op.create_index("waits_uid", "waits", ["uid"])
    _create_outside()


def _create_outside() -> None:
    op.create_table(
        "keys",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("uids", sa.LargeBinary, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
    )
    op.create_index("keys_created", "keys", ["created"])
    op.create_table(
        "deliveries",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("uid", sa.Text, nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("secret", sa.Text, nullable=False),
        sa.Column("event", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("due", sa.BigInteger),
        sqlite_autoincrement=True,
    )
    _create_partial_index("deliveries_due", "deliveries", "due")
    op.create_index("deliveries_order", "deliveries", ["uid", "url", "id"])


def _create_partial_index(name: str, table: str, column: str, *, where: str = "") -> None:
    condition = sa.text(f"{where or column} IS NOT NULL")
    op.create_index(name, table, [column], sqlite_where=condition, postgresql_where=condition)

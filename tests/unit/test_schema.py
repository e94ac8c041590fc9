"""Which databases an MLflow version may go on with, word for word, and what a migration is expected to take."""

from __future__ import annotations

import pytest
from ansible_collections.mlops.mlflow.plugins.module_utils import schema
from hypothesis import given
from hypothesis import strategies as st

TABLES = {"experiments", "runs", "metrics", "alembic_version"}
ELSEWHERE = "give MLflow a database of its own in mlflow_database_name"


def problem(found: list[str], tables: set[str], store: str = "tracking") -> str | None:
    """Return what is wrong for a version that knows a1 to a3 and wants a3."""
    return schema.problem(store, found, ["a3", "a2", "a1"], tables)


@pytest.mark.parametrize(
    ("found", "tables"),
    [
        ([], set()),
        ([], {"alembic_version"}),
        ([], {"orders", "customers"}),
        (["a1"], TABLES),
        (["a3"], TABLES),
        # As a migration that was stopped at its beginning may have left it.
        (["a1"], set()),
    ],
)
def test_databases_to_go_on_with(found: list[str], tables: set[str]) -> None:
    """Empty ones, and those at a revision that the version knows."""
    assert problem(found, tables) is None


@pytest.mark.parametrize(
    ("found", "tables", "words"),
    [
        (
            ["b9"],
            TABLES,
            "its tables are those of a newer MLflow: it does not know their revision b9, only such up to a3. Set mlflow_version to the version that made them; "
            "the way back to an older one is playbooks/rollback.yml",
        ),
        (
            ["b9"],
            {"ab_user", "dag"},
            f"its revision b9 is no revision of MLflow, and MLflow's tables are not there; it belongs to another program: {ELSEWHERE}",
        ),
        (["a1", "b9"], TABLES, f"its version table has 2 revisions (a1, b9), and MLflow has one; it belongs to another program: {ELSEWHERE}"),
        (
            [],
            {"experiments", "runs"},
            "it has MLflow's tables and no revision, so nobody knows which release made them; restore the version table, or set the revision with the "
            "alembic of that release",
        ),
        ([], {"metrics", "orders"}, f"it has a table metrics of another program, whose name MLflow needs: {ELSEWHERE}"),
    ],
)
def test_databases_to_keep_off(found: list[str], tables: set[str], words: str) -> None:
    """Newer ones and those of other programs, with the way out."""
    assert problem(found, tables) == words


def test_users_without_a_revision_are_those_of_an_early_release() -> None:
    """MLflow itself knows which one."""
    assert problem([], {"users", "experiment_permissions", "registered_model_permissions"}, "auth") is None
    assert "mlflow_database_auth_name" in str(problem([], {"users"}, "auth"))


@given(st.dictionaries(st.text(min_size=1), st.integers(0, 10**9)))
def test_more_rows_take_longer(rows: dict[str, int]) -> None:
    """And never less than a migration of nothing."""
    seconds = schema.expected_seconds(rows)
    assert seconds >= schema.SECONDS == schema.expected_seconds({})
    assert schema.expected_seconds({**rows, "": schema.ROWS_PER_SECOND}) == seconds + 1


def test_the_biggest_tables() -> None:
    """Those with the most rows, in that order."""
    assert schema.biggest({"a": 1, "b": 3, "c": 3, "d": 0}, 3) == {"b": 3, "c": 3, "a": 1}
    assert list(schema.biggest({"a": 1, "b": 3, "c": 3}, 3)) == ["b", "c", "a"]


def test_what_is_said_before_an_upgrade() -> None:
    """Which tables change, how much there is to it, and whether the copy fits."""
    looked = {
        "revisions": {"tracking": {"before": "a1", "after": "a3"}, "auth": {"before": "c1", "after": "c1"}},
        "rows": {"tracking": {"metrics": 1_000_000, "runs": 100}, "auth": {"users": 0}},
        "expected_seconds": 130,
    }
    assert schema.notice(looked, {"needed_mib": 250, "free_mib": 9000}, "/var/backups/mlflow") == [
        "The tables change: tracking from a1 to a3",
        "Rows, about: metrics 1000000, runs 100",
        "A copy takes up to 250 MiB of 9000 MiB in /var/backups/mlflow",
        "MLflow will be away for about 130 s, and as long as the copy takes",
    ]


def test_what_going_back_would_lose() -> None:
    """Rows by table, and runs by name; or that there is none of both."""
    run = {"id": "r1", "name": "later", "start": "2026-11-21 12:00:00Z"}
    looked = {"path": "/copies/x", "lost": {"tracking": {"runs": {"now": 12, "then": 10}}}, "runs": [run]}
    assert schema.loss(looked, "3.16.1") == [
        "Back to MLflow 3.16.1 and the copy /copies/x. What was written since then would be lost, changes of rows that were there too:",
        "tracking.runs: 12 rows now, 10 then",
        "Runs that began since then: 1",
        "2026-11-21 12:00:00Z run r1 later",
    ]
    assert schema.loss({"path": "/copies/x", "lost": {}, "runs": []}, "3.16.1")[1:] == ["no table has another number of rows", "Runs that began since then: 0"]
    assert "100 or more, of which the latest are" in schema.loss({**looked, "runs": looked["runs"] * 100}, "3.16.1")[2]


def test_tables_of_others() -> None:
    """The statement that hands them over, or a database of one's own."""
    assert schema.foreign("auth", {"users": "shop", "alembic_version": "shop"}, "mlflow_owner") == (
        "its table users belongs to the role shop, and mlflow_owner cannot change it. Where it is MLflow's: ALTER TABLE public.users OWNER TO mlflow_owner, "
        "and so with all of MLflow's tables. Where it is another program's: give MLflow a database of its own in mlflow_database_auth_name"
    )


@pytest.mark.parametrize(
    ("valid", "wanted", "statements"),
    [
        (None, True, [schema.MAKE_INDEX]),
        (True, True, []),
        # Its making was interrupted.
        (False, True, [schema.DROP_INDEX, schema.MAKE_INDEX]),
        (True, False, [schema.DROP_INDEX]),
        (False, False, [schema.DROP_INDEX]),
        (None, False, []),
    ],
)
def test_the_index_comes_and_goes(valid: bool | None, wanted: bool, statements: list[str]) -> None:
    """And one that cannot be used is made anew."""
    assert schema.index_repairs(valid, wanted) == statements

# Written by the role mlops.mlflow.mlflow; edits are overwritten.
"""Searches for runs without DISTINCT, where no run can come twice.

MLflow asks for distinct runs, and so PostgreSQL compares whole rows of all runs that match, to return the first few. A run has one latest metric, param and
tag of each name, so what is joined to it by name cannot repeat it; what is joined otherwise (datasets) can.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

NAMED = {"latest_metrics", "params", "tags"}


def joined(source: Any) -> Iterator[Any]:
    """Yield what a FROM clause joins to its first table."""
    while hasattr(source, "right"):
        yield source.right
        source = source.left
    yield source


def by_name(source: Any) -> bool:
    """Tell whether a subquery has one row for each run at most: that of one name."""
    from sqlalchemy.sql import Select, operators

    query = getattr(source, "element", None)
    if not isinstance(query, Select) or [getattr(table, "name", "") in NAMED for table in query.get_final_froms()] != [True]:
        return False
    conditions = list(query._where_criteria)
    while conditions:
        condition = conditions.pop()
        if getattr(condition, "operator", None) is operators.and_:
            conditions += condition.clauses
        elif getattr(condition, "operator", None) is operators.eq and getattr(condition.left, "name", "") == "key":
            return True
    return False


def without_distinct(statement: Any) -> Any:
    """Take DISTINCT away from a search for runs, where it changes nothing.

    Args:
        statement: any statement of SQLAlchemy.

    Returns:
        Another statement, or the same.
    """
    if not getattr(statement, "_distinct", False) or statement._distinct_on:
        return statement
    # Of whole runs: single columns of them can well be the same.
    if not any(getattr(each["expr"], "__tablename__", "") == "runs" for each in statement.column_descriptions):
        return statement
    sources = [part for source in statement.get_final_froms() for part in joined(source)]
    others = [source for source in sources if getattr(source, "name", "") != "runs"]
    if len(others) != len(sources) - 1 or not all(by_name(source) for source in others):
        return statement
    statement = statement._generate()
    statement._distinct = False
    return statement


def install() -> None:
    """Have all sessions of this process do so."""
    from sqlalchemy import event
    from sqlalchemy.orm import Session

    @event.listens_for(Session, "do_orm_execute")
    def shorten(state: Any) -> None:
        if state.is_select:
            state.statement = without_distinct(state.statement)

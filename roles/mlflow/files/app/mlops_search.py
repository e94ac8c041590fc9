# Written by the role mlops.mlflow.mlflow; edits are overwritten.
"""Searches for runs that do not look at all of them to return the first few.

MLflow asks for distinct runs, and so PostgreSQL compares whole rows of all runs that match. A run has one latest metric, param and tag of each name, so
what is joined to it by name cannot repeat it; what is joined otherwise (datasets) can.

It also puts runs without the metric that they are ordered by last, and those where it is NaN before them, and no index has that order. But what is
asked for are the first ones, and where enough runs have a number, these come first: an index has their order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

METRICS = "latest_metrics"
# Runs of a page, beyond which looking for them first would take as long.
LONGEST_PAGE = 1000
NAMED = {METRICS, "params", "tags"}


def joined(source: Any) -> Iterator[Any]:
    """Yield what a FROM clause joins to its first table."""
    while hasattr(source, "right"):
        yield source.right
        source = source.left
    yield source


def table_by_name(source: Any) -> str:
    """Return the table of which a subquery has one row for each run at most, that of one name; empty for any other subquery."""
    from sqlalchemy.sql import Select, operators

    query = getattr(source, "element", None)
    if not isinstance(query, Select):
        return ""
    tables = [getattr(table, "name", "") for table in query.get_final_froms()]
    conditions = list(query._where_criteria)
    while conditions:
        condition = conditions.pop()
        if getattr(condition, "operator", None) is operators.and_:
            conditions += condition.clauses
        elif getattr(condition, "operator", None) is operators.eq and getattr(condition.left, "name", "") == "key":
            return tables[0] if len(tables) == 1 and tables[0] in NAMED else ""
    return ""


def finds_runs(statement: Any) -> bool:
    """Tell whether whole runs are asked for."""
    return any(getattr(each["expr"], "__tablename__", "") == "runs" for each in statement.column_descriptions)


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
    if not finds_runs(statement):
        return statement
    sources = [part for source in statement.get_final_froms() for part in joined(source)]
    others = [source for source in sources if getattr(source, "name", "") != "runs"]
    if len(others) != len(sources) - 1 or not all(table_by_name(source) for source in others):
        return statement
    statement = statement._generate()
    statement._distinct = False
    return statement


def first_with_number(statement: Any) -> Any:
    """Ask for the IDs of the runs that a search returns, if enough of them have a number for the metric that they are ordered by first.

    Args:
        statement: a search for runs as MLflow writes it, without DISTINCT.

    Returns:
        A statement with the same order, offset and limit; None where the search is another one.
    """
    from sqlalchemy import false, select
    from sqlalchemy.sql import operators

    orders = getattr(statement, "_order_by_clauses", ())
    name = getattr(orders[0], "element", None) if len(orders) > 1 else None
    # MLflow's name for: 0 a number, 1 NaN, 2 no such metric.
    if not isinstance(name, str) or name != "clause_1" or statement._distinct or not finds_runs(statement):
        return None
    # MLflow asks for one more, to see whether there is another page.
    if statement._limit is None or statement._limit > LONGEST_PAGE + 1:
        return None
    value = orders[1].element if getattr(orders[1], "modifier", None) is operators.desc_op else orders[1]
    source = getattr(value, "table", None)
    if source is None or table_by_name(source) != METRICS:
        return None
    joins = [(target, *rest, flags | {"isouter": False} if target is source else flags) for target, *rest, flags in statement._setup_joins]
    if joins == list(statement._setup_joins):
        return None
    first = statement.where(source.c.is_nan == false())
    first._raw_columns = select(statement.column_descriptions[0]["entity"].run_uuid)._raw_columns + statement._raw_columns[1:]
    first._setup_joins = tuple(joins)
    first._order_by_clauses = tuple(orders[1:])
    first._with_options = ()
    return first


def install() -> None:
    """Have all sessions of this process do so."""
    from sqlalchemy import event
    from sqlalchemy.orm import Session

    @event.listens_for(Session, "do_orm_execute")
    def shorten(state: Any) -> Any:
        if not state.is_select:
            return None
        try:
            statement = without_distinct(state.statement)
            first = first_with_number(statement)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            # Another SQLAlchemy than the locks have, which keeps statements otherwise.
            return None
        state.statement = statement
        if first is None:
            return None
        found = [row[0] for row in state.session.execute(first)]
        if len(found) == statement._limit:
            narrow = statement.where(statement.column_descriptions[0]["entity"].run_uuid.in_(found)).offset(None)
            result = state.invoke_statement(narrow).freeze()
            # Unless one of them has changed meanwhile.
            if len(result.data) == statement._limit:
                return result()
        return None

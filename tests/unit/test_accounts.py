"""Users of MLflow and their permissions: what is refused, word for word, and what an exact set takes away."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.mlops.mlflow.plugins.module_utils import accounts
from hypothesis import given
from hypothesis import strategies as st

ALICE = {"name": "alice"}
GOOD = "p@s:s/w%o'r\"d $x\\"
# A sentence has none of these letters, so a password made of them is there only if it was shown.
HIDDEN = st.text("~^|`", min_size=1, max_size=40)


def problem(**user: Any) -> str | None:
    """Return what is wrong with an entry for alice that says this."""
    return accounts.user_problem(ALICE | user, "admin")


@pytest.mark.parametrize(
    "user",
    [
        {},
        {"password": GOOD},
        {"password": 123456789012},
        {"state": "absent"},
        {"name": "zoe@example.org", "password": GOOD},
        {"name": "zoe@example.org", "state": "absent"},
        {"name": 1234},
        {"admin": True, "exact_permissions": "no"},
        {"experiments": {"churn": "EDIT", "*": "READ", 2024: "DENY"}, "registered_models": {"m": "USE"}, "prompts": {"p": "MANAGE"}},
    ],
)
def test_good_entries(user: dict[str, Any]) -> None:
    """Nothing is said about them."""
    assert problem(**user) is None


@pytest.mark.parametrize("entry", ["alice", None, ["alice"], {}, {"name": ""}, {"name": None}, {"password": GOOD}])
def test_an_entry_needs_a_name(entry: Any) -> None:
    """Whatever it is instead, it is not shown: there may be a password in it."""
    assert accounts.user_problem(entry, "admin") == "an entry is a mapping with a name, such as {name: alice, experiments: {churn: EDIT}}"


@pytest.mark.parametrize(
    ("user", "words"),
    [
        ({"grants": "read"}, "unknown key 'grants'; the keys are admin, exact_permissions, experiments, name, password, prompts, registered_models, state"),
        ({"name": "admin"}, "'admin' is the administrator of mlflow_admin_user, with mlflow_admin_password; leave the entry out"),
        ({"name": "a:b"}, "the name 'a:b' has a colon, which ends the name in HTTP's basic authentication; choose another"),
        ({"name": "a\nb"}, "the name 'a\\nb' has characters that cannot be seen; leave them out"),
        ({"name": " a"}, "the name ' a' has characters that cannot be seen; leave them out"),
        ({"name": "zoë"}, "the name 'zoë' has characters beyond ASCII, with which some routes of MLflow let nobody in; leave them out"),
        (
            {"password": "Größe-des-Hauses"},
            "the password of 'alice' is not shown; it has characters beyond ASCII, with which some routes of MLflow let nobody in; leave them out",
        ),
        ({"name": ["a"]}, "the name is missing"),
        ({"name": True}, "the name is missing"),
        (
            {"name": "a@b"},
            "the password of 'a@b' cannot be made, as its file would have that name; give it a password, or a name of letters, digits, _, . and -",
        ),
        ({"password": ""}, "the password of 'alice' is not shown; the password is empty; give it a value"),
        ({"password": None}, "the password of 'alice' is not shown; the password is empty; give it a value"),
        ({"password": "elevenchars"}, "the password of 'alice' is not shown; MLflow wants 12 characters or more"),
        (
            {"password": "password1234"},
            "the password of 'alice' is not shown; that one stood in older releases of MLflow, so that everybody knows it; use another",
        ),
        ({"state": "gone"}, "the state of 'alice' is 'gone'; use one of present, absent"),
        ({"admin": "maybe"}, "admin of 'alice' is 'maybe'; use true or false"),
        ({"exact_permissions": 2}, "exact_permissions of 'alice' is 2; use true or false"),
        ({"experiments": ["churn"]}, "'alice': experiments is a mapping of names and permissions, such as {churn: EDIT}"),
        ({"prompts": None}, "'alice': prompts is a mapping of names and permissions, such as {churn: EDIT}"),
        (
            {"experiments": {"churn": "WRITE"}},
            "'alice': experiments.churn: the permission 'WRITE' is unknown; use one of READ, USE, EDIT, MANAGE, DENY",
        ),
        ({"experiments": {"churn": ["READ"]}}, "'alice': experiments.churn: the permission ['READ'] is unknown; use one of READ, USE, EDIT, MANAGE, DENY"),
        (
            {"registered_models": {"m": "NO_PERMISSIONS"}},
            "'alice': registered_models.m: MLflow takes NO_PERMISSIONS as mlflow_default_permission only; to shut somebody out of one resource, "
            "use DENY (use one of READ, USE, EDIT, MANAGE, DENY)",
        ),
        ({"experiments": {"": "READ"}}, "'alice': experiments has a permission for an empty name"),
        ({"experiments": {None: "READ"}}, "'alice': experiments has a permission for an empty name"),
    ],
)
def test_bad_entries(user: dict[str, Any], words: str) -> None:
    """One sentence, with what would be right."""
    assert problem(**user) == words


def test_the_administrator_by_another_name() -> None:
    """Only that one is taken."""
    assert accounts.user_problem({"name": "admin"}, "boss") is None
    assert "is the administrator" in str(accounts.user_problem({"name": "boss"}, "boss"))


def test_all_entries_are_told_with_their_place() -> None:
    """And names that stand there twice, also as a number and as a text."""
    users = [{"name": 7}, {"name": "a", "password": "x"}, {"name": "7"}, "b", {"name": ["c"]}, {"name": ["c"]}]
    assert [line.partition(":")[0] for line in accounts.user_problems(users, "admin")] == [
        "mlflow_users[1]",
        "mlflow_users[3]",
        "mlflow_users[4]",
        "mlflow_users[5]",
        "mlflow_users",
        "mlflow_users",
    ]
    assert accounts.user_problems([{"name": "a"}, {"name": "a"}], "admin") == ["mlflow_users: 'a' stands there twice; leave one"]
    assert accounts.user_problems([], "admin") == []


@given(value=HIDDEN, place=st.sampled_from([{}, {"name": "a@b"}, {"state": "x"}, {"unknown": 1}, {"prompts": 1}, {"name": ""}]))
def test_passwords_are_never_shown(value: str, place: dict[str, Any]) -> None:
    """Whatever else is wrong."""
    for wrapped in (value, [value], {"a": value}):
        assert value not in "".join(accounts.user_problems([ALICE | {"password": wrapped} | place], "admin"))


@given(st.text())
def test_a_password_is_good_or_not(password: str) -> None:
    """By MLflow's own rules: the one that it says, and the one that only its newer routes have."""
    assert (accounts.password_problem(password) is None) == (len(password) >= 12 and password.isascii() and password != "password1234")


PRESENT = {
    ("experiment", "1"): "READ",
    ("experiment", "2"): "MANAGE",
    ("experiment", "*"): "DENY",
    ("prompt", "p"): "USE",
    ("registered_model", "m"): "EDIT",
    ("scorer", "1/s"): "READ",
}


def test_an_exact_set_leaves_owners_and_other_kinds_alone() -> None:
    """MANAGE may come from having made it, and scorers have no place in mlflow_users."""
    assert accounts.to_revoke(PRESENT, set()) == [("experiment", "*"), ("experiment", "1"), ("prompt", "p"), ("registered_model", "m")]
    assert accounts.to_revoke(PRESENT, {("experiment", "1"), ("prompt", "p")}) == [("experiment", "*"), ("registered_model", "m")]


@given(st.sets(st.sampled_from(sorted(PRESENT))))
def test_an_exact_set_takes_nothing_that_is_listed(wanted: set[tuple[str, str]]) -> None:
    """And nothing that is not there."""
    assert not set(accounts.to_revoke(PRESENT, wanted)) & wanted
    assert set(accounts.to_revoke(PRESENT, wanted)) <= set(PRESENT)

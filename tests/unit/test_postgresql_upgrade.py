"""From one major version of PostgreSQL to another: what is decided before anything is changed."""

from __future__ import annotations

import itertools
import types
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.mlflow.plugins.module_utils import database, postgresql_upgrade
from ansible_collections.mlops.mlflow.plugins.modules import postgresql_upgrade as steps
from hypothesis import given
from hypothesis import strategies as st

VERSIONS = st.lists(st.sampled_from(["13", "14", "15", "16", "17", "18"]), unique=True)
ROWS = st.dictionaries(st.sampled_from(["mlflow", "mlflow_auth"]), st.dictionaries(st.sampled_from(["public.a", "public.b", "s.c"]), st.integers(0, 3)))


def journal(origin: str, destination: str, phase: str = "done", **more: Any) -> dict[str, Any]:
    """What is remembered of a move."""
    return {"origin": origin, "destination": destination, "phase": phase, "rows": {}, "expected": {}, "port": 5432, **more}


@pytest.mark.parametrize(
    ("versions", "wanted", "remembered", "action", "origin"),
    [
        (["15"], "17", {}, "upgrade", "15"),
        (["17"], "17", {}, "none", "17"),
        # The old cluster is kept, and then removed.
        (["15", "17"], "17", journal("15", "17"), "none", "17"),
        (["17"], "17", journal("15", "17"), "none", "17"),
        (["15", "17"], "15", journal("15", "17"), "back", "17"),
        (["15", "17"], "15", journal("15", "17", "starting"), "back", "17"),
        # After the way back; the newer cluster is kept meanwhile.
        (["15", "17"], "15", journal("17", "15"), "none", "15"),
        (["15", "17"], "17", journal("17", "15"), "upgrade", "15"),
        # Interrupted, both ways.
        (["15", "17"], "17", journal("15", "17", "moving"), "upgrade", "15"),
        (["15", "17"], "15", journal("15", "17", "moving"), "none", "15"),
        (["15", "17"], "15", journal("17", "15", "moving"), "back", "17"),
        (["15"], "17", journal("15", "17", "moving"), "upgrade", "15"),
    ],
)
def test_the_decision(versions: list[str], wanted: str, remembered: dict[str, Any], action: str, origin: str) -> None:
    """It follows from the clusters that there are, and from what is remembered of the last move."""
    decided = postgresql_upgrade.decision("main", versions, wanted, remembered)
    assert (decided["action"], decided["origin"], decided["destination"]) == (action, origin, wanted)


@pytest.mark.parametrize(
    ("versions", "wanted", "remembered", "why"),
    [
        ([], "17", {}, "There is no cluster main"),
        (["15", "17"], "17", {}, "There are the clusters 15/main and 17/main, and nobody knows"),
        (["17"], "15", {}, "PostgreSQL 17 cannot become 15, and no cluster of 15 was kept"),
        (["17"], "15", journal("15", "17"), "PostgreSQL 17 cannot become 15"),
        (["15", "17"], "18", journal("15", "17"), "remove it first with pg_dropcluster 15 main"),
    ],
)
def test_what_is_refused(versions: list[str], wanted: str, remembered: dict[str, Any], why: str) -> None:
    """With the way out."""
    decided = postgresql_upgrade.decision("main", versions, wanted, remembered)
    assert decided["action"] == "refused" and why in decided["why"]


MOVES = st.tuples(*[st.sampled_from(["13", "15", "17"])] * 2, st.sampled_from(["moving", "starting", "done"]))


@given(VERSIONS, st.sampled_from(["13", "15", "17"]), st.none() | MOVES)
def test_the_data_is_never_looked_for_where_it_is_not(versions: list[str], wanted: str, move: tuple[str, str, str] | None) -> None:
    """Whatever there is: who is not refused starts from a cluster that exists, and an upgrade never leads down."""
    remembered = journal(*move) if move and move[0] != move[1] else {}
    decided = postgresql_upgrade.decision("main", versions, wanted, remembered)
    if decided["action"] == "refused":
        assert decided["why"]
        return
    assert decided["origin"] in versions
    assert (decided["action"] == "none") == (decided["origin"] == wanted)
    if decided["action"] == "upgrade":
        assert int(decided["origin"]) < int(wanted)
    if decided["action"] == "back":
        assert wanted in versions and int(wanted) < int(decided["origin"])


def test_undoing_forgets_an_upgrade_and_remembers_the_one_before_a_way_back() -> None:
    """So that the way back can be tried again."""
    rows = {"mlflow": {"public.runs": 3}}
    assert postgresql_upgrade.undone(journal("15", "17", "moving")) == {}
    again = postgresql_upgrade.undone(journal("17", "15", "moving", expected=rows))
    assert (again["origin"], again["destination"], again["phase"], again["rows"]) == ("15", "17", "done", rows)
    assert postgresql_upgrade.decision("main", ["15", "17"], "15", again)["action"] == "back"


def test_the_journal_survives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read as it was written, and an empty one is gone."""
    monkeypatch.setattr(postgresql_upgrade, "STATE", str(tmp_path / "state"))
    assert postgresql_upgrade.read_journal("main") == {}
    postgresql_upgrade.write_journal("main", journal("15", "17"))
    assert postgresql_upgrade.read_journal("main") == journal("15", "17")
    postgresql_upgrade.write_journal("main", {})
    postgresql_upgrade.write_journal("main", {})
    assert postgresql_upgrade.read_journal("main") == {} and list((tmp_path / "state").iterdir()) == []


@pytest.mark.parametrize(
    ("transfer", "rehearse", "needed"), [("copy", False, 1256), ("copy", True, 2512), ("clone", False, 256), ("clone", True, 1512)]
)
def test_the_room_that_it_takes(transfer: str, rehearse: bool, needed: int) -> None:
    """The copy of a rehearsal has its own blocks, also where the upgrade shares them."""
    assert postgresql_upgrade.needed_mib(1000, transfer, rehearse) == needed


@given(ROWS, ROWS)
def test_differences_are_found_and_nothing_else(then: dict[str, dict[str, int]], now: dict[str, dict[str, int]]) -> None:
    """Also a table that has appeared or gone without ever having had a row."""
    found = postgresql_upgrade.differences(then, now)
    assert postgresql_upgrade.differences(then, then) == {}
    places = {(database, table) for database, tables in found.items() for table in tables}
    everywhere = {(database, table) for rows in (then, now) for database, tables in rows.items() for table in tables}
    assert places == {(database, table) for database, table in everywhere if then.get(database, {}).get(table) != now.get(database, {}).get(table)}
    assert len(postgresql_upgrade.difference_lines(found)) == len(places)


def test_an_extension_that_is_missing_is_named_once() -> None:
    """With the databases that have it."""
    installed = {"mlflow": ["plpgsql", "postgis"], "other": ["postgis"]}
    assert postgresql_upgrade.missing_extensions(installed, ["plpgsql"], "17") == [
        "The extension postgis of the database mlflow, other is not there for PostgreSQL 17: install its package, or drop it."
    ]
    assert postgresql_upgrade.missing_extensions(installed, ["plpgsql", "postgis"], "17") == []


def test_the_summary() -> None:
    """What happens, how much room it takes, and what is lost."""
    upgrade = {
        "action": "upgrade",
        "cluster": "main",
        "origin": "15",
        "destination": "17",
        "origin_version": "15.18",
        "destination_version": "17.12",
        "data_mib": 39,
        "needed_mib": 590,
        "free_mib": 5000,
        "versions": ["15"],
    }
    lines = postgresql_upgrade.summary(upgrade)
    assert lines[0] == "PostgreSQL 15.18 would be upgraded to 17.12; MLflow stops meanwhile." and "590 MiB" in lines[1] and len(lines) == 3
    assert "is removed" in postgresql_upgrade.summary(upgrade | {"versions": ["15", "17"]})[3]
    assert "77 tables" in postgresql_upgrade.summary(upgrade | {"seconds": 6, "total": 14, "tables": 77})[-1]
    back = {"action": "back", "cluster": "main", "origin": "17", "destination": "15", "lost": {"mlflow": {"public.runs": {"then": 1, "now": 2}}}}
    assert postgresql_upgrade.summary(back)[-1] == "mlflow: public.runs: 1 rows then, 2 now"
    assert "No table has another number of rows" in postgresql_upgrade.summary(back | {"lost": {}})[-1]
    assert postgresql_upgrade.summary({**back, "action": "none"}) == ["PostgreSQL 17 has MLflow's data already."]


class PowerLoss(Exception):
    """The host goes down at this moment."""


class Clusters:
    """Stands for a host with clusters: who has which rows, which of them start at boot, and which of them others have reached."""

    def __init__(self, clusters: dict[str, int], boots: str) -> None:
        """Remember how many rows each cluster has, and which one starts at boot; the power stays."""
        self.cluster, self.clusters, self.boot, self.reached, self.runs, self.left = "main", dict(clusters), {boots}, {boots}, boots, 10_000

    def __getattr__(self, name: str) -> Any:
        """Whatever else is done to clusters; the power may fail before it and after it."""

        def act(*arguments: str) -> Any:
            for after in (False, True):
                self.left -= 1
                if self.left <= 0:
                    raise PowerLoss
                if not after:
                    answer = self.do(name, *arguments)
            return answer

        return act

    def do(self, name: str, version: str = "", *more: str) -> Any:
        """What matters of it."""
        if name in ("start", "start_alone"):
            assert self.runs in ("", version) and version in self.clusters
            self.runs = version
            self.reached |= {version} if name == "start" else set()
        elif name in ("stop", "drop"):
            self.runs = "" if self.runs == version else self.runs
            if name == "drop":
                assert version not in self.reached, "what others have written is removed"
                self.clusters.pop(version, None)
                self.boot.discard(version)
        elif name == "upgrade":
            self.clusters[more[0]], self.runs = self.clusters[version], ""
        elif name == "use":
            self.boot.add(version)
        elif name == "keep":
            self.boot.discard(version)
        return {"mlflow": {"public.runs": self.clusters.get(version, 0)}}


def holder(versions: dict[str, int], wanted: str) -> str:
    """Return where the journal says that the data is."""
    return postgresql_upgrade.decision("main", list(versions), wanted, postgresql_upgrade.read_journal("main"))["origin"]


def move_to(host: Any, wanted: str) -> None:
    """Go to a version, as the playbook does."""
    module: Any = types.SimpleNamespace(params={"quiet_timeout": 0, "transfer": "copy", "conf": ""}, warn=lambda text: None)
    steps.move(host, module, steps.situation(host, wanted))
    steps.serve(host, module, postgresql_upgrade.read_journal("main"))


@pytest.fixture(name="server", autouse=True)
def fixture_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that nobody has to ask, and a folder for the journal."""
    monkeypatch.setattr(postgresql_upgrade, "STATE", str(tmp_path / "state"))
    monkeypatch.setattr(steps, "wait_until_quiet", lambda *arguments: None)
    monkeypatch.setattr(database, "rows", lambda connection, query: [["5432"]] if query == "SHOW port" else [])


@pytest.mark.parametrize(("there", "wanted"), [({"15": 3}, "17"), ({"15": 3, "17": 3}, "15")])
def test_the_power_fails(there: dict[str, int], wanted: str) -> None:
    """At every single moment, there and back: the host starts neither cluster or the one with the data, and what others could reach is never removed."""
    begin, module = max(there, key=int), types.SimpleNamespace(warn=lambda text: None)
    for moment in itertools.count(1):
        postgresql_upgrade.write_journal("main", journal("15", "17", rows={"mlflow": {"public.runs": 3}}) if len(there) == 2 else {})
        host: Any = Clusters(there, begin)
        host.versions = lambda host=host: list(host.clusters)
        host.left = moment
        try:
            move_to(host, wanted)
        except PowerLoss:
            pass
        else:
            break
        has = holder(host.clusters, wanted)
        assert host.boot <= {has}
        # It boots, and what runs then is written to.
        host.runs, host.left = next(iter(host.boot), ""), 10_000
        host.reached |= host.boot
        steps.recover(host, module, postgresql_upgrade.read_journal("main"))
        assert host.boot == {host.runs} == {has} == {holder(host.clusters, wanted)} and has in host.clusters
    assert moment > 20 and host.boot == {host.runs} == {wanted} == {holder(host.clusters, wanted)}


def test_rows_are_missing() -> None:
    """Then nobody else ever reaches the new cluster, and undoing removes it."""
    host: Any = Clusters({"15": 3}, "15")
    host.versions = lambda: list(host.clusters)
    host.upgrade = lambda *arguments: (host.clusters.update({"17": 2}), host.stop("15"))
    with pytest.raises(steps.Failed, match="PostgreSQL 17 has other rows: mlflow: public.runs: 3 rows then, 2 now"):
        move_to(host, "17")
    assert (host.runs, host.boot, host.reached) == ("", set(), {"15"})
    steps.recover(host, types.SimpleNamespace(), postgresql_upgrade.read_journal("main"))
    assert (host.runs, host.boot, host.clusters) == ("15", {"15"}, {"15": 3})


def test_the_new_server_does_not_start_for_everybody() -> None:
    """It keeps the data, which the message says, and the next run tries again."""
    host: Any = Clusters({"15": 3}, "15")
    host.versions = lambda: list(host.clusters)

    def refuse(version: str) -> None:
        raise steps.Failed("the port is taken")

    host.start = refuse
    with pytest.raises(steps.Failed, match="PostgreSQL 17 has the data now, and does not start"):
        move_to(host, "17")
    del host.start
    remembered = postgresql_upgrade.read_journal("main")
    assert postgresql_upgrade.is_unfinished(remembered) and not postgresql_upgrade.is_undoable(remembered)
    steps.recover(host, types.SimpleNamespace(), remembered)
    assert host.boot == {"17"} and host.clusters == {"15": 3, "17": 3} and postgresql_upgrade.read_journal("main")["phase"] == "done"

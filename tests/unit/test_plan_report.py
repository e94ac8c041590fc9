"""A plan as text, as a page and as data."""

from __future__ import annotations

import copy
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from ansible_collections.mlops.mlflow.plugins.module_utils import plan_report
from hypothesis import given
from hypothesis import strategies as st

EVIL = '<script>alert("x")</script>\' onload=\'x\' & \x1b[31m\t\n</style>'


def row(setting: str, now: str, planned: str, effect: str, reason: str = "From postgresql_settings.") -> dict[str, str]:
    """Return one row of a plan."""
    return {"setting": setting, "now": now, "planned": planned, "reason": reason, "effect": effect}


def plan(*rows: dict[str, str], **other: Any) -> dict[str, Any]:
    """Return a host's plan."""
    return {"host": "db-1", "service": "postgresql", "rows": list(rows), "memory": None, "connections": None, "notices": [], **other}


MEMORY = {
    "host_mib": 16000,
    "share_mib": 8000,
    "limit_mib": 6400,
    "parts": [
        {"name": "shared_buffers", "mib": 2000, "detail": "a quarter of the share"},
        {"name": "connections", "mib": 2816, "detail": "256 × work_mem × hash_mem_multiplier"},
    ],
}
CONNECTIONS = {"total": 256, "parts": [{"what": "mlflow-1: 2 workers × (40 + 1) × 3 engines", "count": 246}, {"what": "reserve", "count": 10}]}
FULL = plan(
    row("wal_level", "replica", "replica", "nothing"),
    row("work_mem", "4MB", "5632kB", "reload"),
    row("shared_buffers", "128MB", "2000MB", "restart", "A quarter of the share; the rest is the page cache, which PostgreSQL reads through. " * 2),
    row("archive_command", "", "pgbackrest --stanza=mlflow archive-push %p", "reload"),
    memory=MEMORY,
    connections=CONNECTIONS,
    notices=["The disk under the WAL is small."],
)


class Page(HTMLParser):
    """Reads a page strictly: every tag that opens is closed, in order."""

    VOID = ("meta", "br", "img", "link", "input", "hr")

    def __init__(self, text: str) -> None:
        """Read the whole page."""
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep what opens."""
        assert len({name for name, dummy in attrs}) == len(attrs), f"an attribute twice: {attrs}"
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Check that the innermost one closes."""
        assert self.open and self.open.pop() == tag, f"closed out of order: {tag}"

    def handle_data(self, data: str) -> None:
        """Keep what a reader sees."""
        if "style" not in self.open:
            self.text.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        """Return the attributes of all elements of a name."""
        return [attributes for name, attributes in self.found if name == tag]


@pytest.mark.parametrize(
    ("effects", "sentence"),
    [
        ([], "nothing changes"),
        (["nothing", "nothing"], "nothing changes"),
        (["reload"], "1 setting changes: 1 by reload"),
        (["restart"], "1 setting changes: 1 needs a restart (s0)"),
        (["reload", "restart", "nothing", "reload"], "3 settings change: 2 by reload, 1 needs a restart (s1)"),
        (["restart", "restart"], "2 settings change: 2 need a restart (s0, s1)"),
        (["first start", "first start"], "2 settings change: 2 at the first start"),
    ],
)
def test_one_sentence_says_what_will_happen(effects: list[str], sentence: str) -> None:
    """Who reads nothing else reads this."""
    rows = [row(f"s{number}", "1", "2", effect) for number, effect in enumerate(effects)]
    assert plan_report.outcome(plan(*rows)) == sentence
    assert plan_report.table(plan(*rows))[0] == f"db-1, postgresql: {sentence}"


def test_rows_that_change_come_first_and_are_marked() -> None:
    """The others follow in the order they had."""
    lines = plan_report.table(FULL)
    assert [line.split()[1] for line in lines if line.startswith("*  ")] == ["work_mem", "shared_buffers", "archive_command"]
    places = [next(at for at, line in enumerate(lines) if f"  {name} " in line) for name in ("archive_command", "wal_level")]
    assert places == sorted(places)


def test_columns_are_aligned() -> None:
    """The words of a column stand below its name."""
    lines = plan_report.table(FULL)
    head = next(line for line in lines if line.split()[:2] == ["setting", "now"])
    first = next(line for line in lines if line.startswith("*  work_mem"))
    for name, value in (("setting", "work_mem"), ("now", "4MB"), ("planned", "5632kB"), ("effect", "reload"), ("reason", "From")):
        assert head.index(name) == first.index(value)


def test_narrow_tables_have_the_reasons_below() -> None:
    """A column of ten characters is no place for a sentence."""
    lines = plan_report.table(FULL, 80)
    assert lines[lines.index(next(line for line in lines if line.startswith("*  work_mem"))) + 1] == "     From postgresql_settings."


def test_memory_budget_as_text() -> None:
    """The parts, their sum, and what is left."""
    lines = plan_report.table(FULL)
    start = lines.index("memory: 8000 of the host's 16000 MiB are for postgresql, and the percentages are of these")
    assert lines[start + 1 : start + 6] == [
        "  shared_buffers     2000  25.0 %  a quarter of the share",
        "  connections        2816  35.2 %  256 × work_mem × hash_mem_multiplier",
        "  together           4816  60.2 %  within the limit of 6400 MiB",
        "  rest of the share  3184  39.8 %  page cache and whatever is not planned",
        "  rest of the host   8000          for other services and the system",
    ]


def test_memory_over_the_limit_is_said() -> None:
    """By how much, too."""
    lines = plan_report.table(plan(memory={**MEMORY, "limit_mib": 4000}))
    assert any(line.endswith("816 MiB over the limit of 4000 MiB") for line in lines)


def test_connections_as_text() -> None:
    """A sum, with the total below."""
    lines = plan_report.table(FULL)
    start = lines.index("connections:")
    assert lines[start + 1 : start + 4] == ["  246  mlflow-1: 2 workers × (40 + 1) × 3 engines", "   10  reserve", "  256  in all"]


@pytest.mark.parametrize(("total", "line"), [(300, "   44  not planned for anybody"), (200, "  -56  too few for all of them")])
def test_connections_that_do_not_add_up(total: int, line: str) -> None:
    """A total of the user's own is held against what the hosts need."""
    assert line in plan_report.table(plan(connections={**CONNECTIONS, "total": total}))
    assert " ".join(line.split()[1:]) in "".join(Page(plan_report.html([plan(connections={**CONNECTIONS, "total": total})], "x")).text)


def test_notices_end_the_text() -> None:
    """One line for each."""
    assert plan_report.table(FULL)[-1] == "note: The disk under the WAL is small."


TEXT = st.text(max_size=90) | st.just(EVIL) | st.just("x" * 200)
SIZES = st.integers(min_value=0, max_value=10**7) | st.floats(min_value=0, max_value=1e7)
ROWS = st.fixed_dictionaries({"setting": TEXT, "now": TEXT, "planned": TEXT, "reason": TEXT, "effect": st.sampled_from(plan_report.EFFECTS)})
PLANS = st.fixed_dictionaries(
    {
        "host": TEXT,
        "service": TEXT,
        "rows": st.lists(ROWS, max_size=4),
        "memory": st.none()
        | st.fixed_dictionaries(
            {
                "host_mib": SIZES,
                "share_mib": SIZES,
                "limit_mib": SIZES,
                "parts": st.lists(st.fixed_dictionaries({"name": TEXT, "mib": SIZES, "detail": TEXT}), max_size=10),
            }
        ),
        "connections": st.none()
        | st.fixed_dictionaries(
            {
                "total": st.integers(min_value=0, max_value=10**6),
                "parts": st.lists(st.fixed_dictionaries({"what": TEXT, "count": st.integers(min_value=0, max_value=10**6)}), max_size=4),
            }
        ),
        "notices": st.lists(TEXT, max_size=3),
    }
)


@given(PLANS, st.integers(min_value=plan_report.MIN_WIDTH, max_value=200))
def test_no_line_is_beyond_the_width(any_plan: dict[str, Any], width: int) -> None:
    """Nor has one a tab, a control character, or blanks at its end."""
    for line in plan_report.table(any_plan, width):
        assert len(line) <= width
        assert line == line.rstrip() and line.isprintable()


def test_a_width_without_room_is_widened() -> None:
    """A terminal that says it has 0 columns."""
    assert plan_report.table(FULL, 0) == plan_report.table(FULL, plan_report.MIN_WIDTH)


@given(st.lists(PLANS, max_size=2), TEXT)
def test_the_page_is_well_formed_whatever_is_in_it(plans: list[dict[str, Any]], title: str) -> None:
    """No value opens or closes a tag, and nothing is loaded from anywhere."""
    text = plan_report.html(plans, title)
    page = Page(text)
    names = {tag for tag, dummy in page.found}
    assert not names & {"script", "img", "link", "iframe", "object", "svg"}
    assert not any(attribute.startswith("on") or attribute == "src" for dummy, attributes in page.found for attribute in attributes)
    assert all(str(attributes["href"]).startswith("#") for attributes in page.named("a"))
    assert "\x1b" not in text
    assert re.search(r"url\(|@import", text.split("</style>")[0]) is None


def test_an_evil_value_is_only_text() -> None:
    """In every place where a value of the user can stand."""
    evil = plan(
        row(EVIL, EVIL, EVIL, EVIL, EVIL),
        host=EVIL,
        service=EVIL,
        memory={**MEMORY, "parts": [{"name": EVIL, "mib": 1, "detail": EVIL}]},
        connections={"total": 1, "parts": [{"what": EVIL, "count": 1}]},
        notices=[EVIL],
    )
    text = plan_report.html([evil, evil], EVIL)
    assert "<script" not in text and text.count("</style>") == 1
    assert "".join(Page(text).text).count('<script>alert("x")</script>') > 10


def test_the_page_says_what_the_text_says() -> None:
    """The sentence, the rows, the figures."""
    page = Page(plan_report.html([FULL], "Plan"))
    text = "".join(page.text)
    assert "3 settings change: 2 by reload, 1 needs a restart (shared_buffers)" in text
    for word in ("shared_buffers", "2000MB", "a quarter of the share", "60.2 %", "within the limit of 6400 MiB", "rest of the host", "mlflow-1: 2 workers"):
        assert word in text
    badges = [str(attributes["class"]) for attributes in page.named("span") if "badge" in str(attributes.get("class"))]
    assert badges == ["badge reload", "badge restart", "badge reload", "badge nothing"]


def test_the_bar_is_as_long_as_the_hosts_memory() -> None:
    """Parts, the rest of the share and the rest of the host, also in words for who does not see it."""
    page = Page(plan_report.html([FULL], "Plan"))
    strip = next(attributes for attributes in page.named("div") if attributes.get("class") == "bar")
    assert strip["role"] == "img"
    assert strip["aria-label"] == (
        "Memory: shared_buffers 2000 MiB, connections 2816 MiB, rest of the share 3184 MiB, rest of the host 8000 MiB; within the limit of 6400 MiB"
    )
    shares = [float(str(found["style"]).split()[1]) for found in page.named("span") if str(found.get("style", "")).startswith("flex-grow")]
    assert shares == [12.5, 17.6, 19.9, 50.0]
    assert [found["style"] for found in page.named("span") if found.get("class") == "mark"] == ["left: 40.0000%"]


def test_wide_tables_scroll_in_their_own_frame() -> None:
    """The page itself fits a phone."""
    text = plan_report.html([FULL, FULL], "Plan")
    assert text.count("<table>") == text.count('tabindex="0"><table>') == 7
    assert "overflow-x: auto" in text and "prefers-color-scheme: dark" in text and "@media print" in text and 'name="viewport"' in text


def test_several_hosts_have_an_overview_that_leads_to_them() -> None:
    """Each link has its place."""
    page = Page(plan_report.html([FULL, {**FULL, "host": "db-2"}], "Plan"))
    assert [attributes["href"] for attributes in page.named("a")] == ["#plan-1", "#plan-2"]
    assert [attributes["id"] for attributes in page.named("section")] == ["plan-1", "plan-2"]
    assert not Page(plan_report.html([FULL], "Plan")).named("a")
    assert "No host has a plan." in "".join(Page(plan_report.html([], "Plan")).text)


def test_the_document_counts_and_leaves_the_plans_alone() -> None:
    """What it returns can be changed without changing them."""
    before = copy.deepcopy(FULL)
    document = plan_report.document([FULL])
    assert document["plans"][0]["summary"] == {"reload": 2, "restart": 1, "nothing": 1, "first start": 0}
    assert document["plans"][0]["outcome"] == plan_report.outcome(FULL)
    assert {key: value for key, value in document["plans"][0].items() if key not in ("summary", "outcome")} == FULL
    document["plans"][0]["rows"].clear()
    assert before == FULL
    assert json.loads(json.dumps(plan_report.document([FULL]))) == plan_report.document([FULL])


@given(PLANS)
def test_writing_a_plan_changes_nothing_in_it(any_plan: dict[str, Any]) -> None:
    """And the same plan gives the same page."""
    before = copy.deepcopy(any_plan)
    assert plan_report.html([any_plan], "x") == plan_report.html([any_plan], "x")
    plan_report.table(any_plan)
    assert any_plan == before

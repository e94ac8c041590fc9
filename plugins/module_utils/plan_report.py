# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""How a plan is shown: as lines of text, as one HTML page, and as a JSON document. Pure functions, no Ansible.

A plan is a mapping: ``host``, ``service``, ``rows`` (each with ``setting``, ``now``, ``planned``, ``reason``, ``effect``), ``memory``
(``host_mib``, ``share_mib``, ``limit_mib``, ``parts`` of ``name``, ``mib``, ``detail``) or None, ``connections`` (``total``, ``parts``
of ``what``, ``count``) or None, and ``notices``, a list of sentences.
"""

from __future__ import annotations

import copy
import re
import textwrap
from html import escape
from typing import Any

EFFECTS = ("reload", "restart", "nothing", "first start")

# Below this the columns of the text have no room for their words.
MIN_WIDTH = 40
# A reason in a narrower column is hard to read; it then stands under its row.
MIN_REASON = 28

# How many colours the page has for the parts of the memory; then they start again, which the numbers tell apart.
COLOURS = 8


def summary(plan: dict[str, Any]) -> dict[str, int]:
    """Count a plan's rows by their effect."""
    return {effect: sum(1 for row in plan["rows"] if row["effect"] == effect) for effect in EFFECTS}


def outcome(plan: dict[str, Any]) -> str:
    """Say in one sentence what will happen on a host.

    Args:
        plan: the host's plan.

    Returns:
        For example ``3 settings change: 2 by reload, 1 needs a restart (shared_buffers)``, or ``nothing changes``.
    """
    count = summary(plan)
    changed = len(plan["rows"]) - count["nothing"]
    if not changed:
        return "nothing changes"
    parts = []
    if count["reload"]:
        parts.append(f"{count['reload']} by reload")
    if count["restart"]:
        names = ", ".join(row["setting"] for row in plan["rows"] if row["effect"] == "restart")
        parts.append(f"{count['restart']} {'needs' if count['restart'] == 1 else 'need'} a restart ({names})")
    if count["first start"]:
        parts.append(f"{count['first start']} at the first start")
    return f"{changed} {'setting changes' if changed == 1 else 'settings change'}: {', '.join(parts)}"


def _ordered(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows, those that change first."""
    return sorted(plan["rows"], key=lambda row: row["effect"] == "nothing")


def _memory_parts(memory: dict[str, Any]) -> tuple[float, float, float]:
    """Return what the parts come to, what they leave of the share, and what of the host is beyond both, in MiB."""
    planned = sum(part["mib"] for part in memory["parts"])
    return planned, max(memory["share_mib"] - planned, 0), max(memory["host_mib"] - max(memory["share_mib"], planned), 0)


def _verdict(memory: dict[str, Any]) -> str:
    """Say whether the parts keep within the limit."""
    planned = _memory_parts(memory)[0]
    if planned > memory["limit_mib"]:
        return f"{_mib(planned - memory['limit_mib'])} MiB over the limit of {_mib(memory['limit_mib'])} MiB"
    return f"within the limit of {_mib(memory['limit_mib'])} MiB"


def _mib(value: float) -> str:
    """Write mebibytes: whole ones, and one digit more for a few."""
    return f"{value:.1f}" if value < 10 and value != round(value) else f"{value:.0f}"


def _percent(value: float, whole: float) -> str:
    """Write a share of a whole in percent; nothing when there is no whole."""
    return f"{value / whole:.1%}".replace("%", " %") if whole else ""


def _clean(value: Any) -> str:
    """Make one line of a value: a terminal must not obey what is in it."""
    return "".join(character if character.isprintable() else " " for character in str(value))


def _wrap(value: Any, width: int) -> list[str]:
    """Break a text into lines; a word that is longer than a line is broken too."""
    return textwrap.wrap(_clean(value), max(width, 1), break_on_hyphens=False) or [""]


def _grid(cells: list[list[str]], widths: list[int], right: tuple[int, ...] = ()) -> list[str]:
    """Lay out rows of cells in columns.

    Args:
        cells: rows; a text that is wider than its column is wrapped.
        widths: the columns' widths; two blanks stand between them.
        right: the columns that are aligned at the right.

    Returns:
        Lines without blanks at their ends.
    """
    lines = []
    for row in cells:
        columns = [_wrap(cell, width) for cell, width in zip(row, widths)]
        for number in range(max(len(column) for column in columns)):
            texts = [column[number] if number < len(column) else "" for column in columns]
            lines.append("  ".join(word.rjust(width) if at in right else word.ljust(width) for at, (word, width) in enumerate(zip(texts, widths))).rstrip())
    return lines


def _natural(cells: list[list[str]], column: int, most: int) -> int:
    """Return the width that a column wants, up to a most."""
    return max(1, min(max((len(_clean(row[column])) for row in cells), default=1), most))


def _paragraph(value: str, width: int, indent: str = "  ") -> list[str]:
    """Wrap a sentence; its further lines are indented."""
    return [line.rstrip() for line in textwrap.wrap(_clean(value), width, subsequent_indent=indent, break_on_hyphens=False)]


def _settings_lines(plan: dict[str, Any], width: int) -> list[str]:
    """Lay out the table of the settings; the reasons stand in its last column, or under the rows when that would be narrow."""
    rows = _ordered(plan)
    if not rows:
        return []
    cells = [["", "setting", "now", "planned", "effect"]]
    cells += [["" if row["effect"] == "nothing" else "*", row["setting"], row["now"], row["planned"], row["effect"]] for row in rows]
    effect = _natural(cells, 4, 11)
    room = width - 1 - effect - 4 * 2
    widths = [1, _natural(cells, 1, min(room * 2 // 5, 42)), *(_natural(cells, at, min(room * 3 // 10, 28)) for at in (2, 3)), effect]
    reason = width - sum(widths) - len(widths) * 2
    if reason >= MIN_REASON:
        reasons = ["reason"] + [row["reason"] for row in rows]
        return _grid([[*row, text] for row, text in zip(cells, reasons)], [*widths, reason])
    lines = _grid(cells[:1], widths)
    for row, texts in zip(rows, cells[1:]):
        lines += _grid([texts], widths)
        lines += ["     " + line for line in _wrap(row["reason"], width - 5) if line]
    return lines


def _memory_lines(memory: dict[str, Any], service: str, width: int) -> list[str]:
    """Lay out the memory budget, with percent of the share."""
    planned, rest, beyond = _memory_parts(memory)
    share = memory["share_mib"]
    head = f"memory: {_mib(share)} of the host's {_mib(memory['host_mib'])} MiB are for {service}, and the percentages are of these"
    cells = [[part["name"], _mib(part["mib"]), _percent(part["mib"], share), part["detail"]] for part in memory["parts"]]
    cells.append(["together", _mib(planned), _percent(planned, share), _verdict(memory)])
    cells.append(["rest of the share", _mib(rest), _percent(rest, share), "page cache and whatever is not planned"])
    cells.append(["rest of the host", _mib(beyond), "", "for other services and the system"])
    figures = [_natural(cells, 1, 12), _natural(cells, 2, 9)]
    name = _natural(cells, 0, (width - 2 - sum(figures) - 6) // 2)
    widths = [name, *figures, max(width - 2 - name - sum(figures) - 6, 1)]
    return _paragraph(head, width) + ["  " + line for line in _grid(cells, widths, right=(1, 2))]


def _connection_rest(connections: dict[str, Any]) -> tuple[str, int] | None:
    """Return what the parts leave of the total, or lack; None when it is even."""
    rest = connections["total"] - sum(part["count"] for part in connections["parts"])
    if not rest:
        return None
    return ("not planned for anybody", rest) if rest > 0 else ("too few for all of them", rest)


def _connections_lines(connections: dict[str, Any], width: int) -> list[str]:
    """Lay out how the number of connections comes about."""
    cells = [[str(part["count"]), part["what"]] for part in connections["parts"]]
    rest = _connection_rest(connections)
    if rest:
        cells.append([str(rest[1]), rest[0]])
    cells.append([str(connections["total"]), "in all"])
    figures = _natural(cells, 0, 12)
    return ["connections:"] + ["  " + line for line in _grid(cells, [figures, width - figures - 4], right=(0,))]


def table(plan: dict[str, Any], width: int = 160) -> list[str]:
    """Write one host's plan as text.

    Args:
        plan: the host's plan.
        width: the most characters of a line; at least 40 are taken.

    Returns:
        Lines without tabs, control characters and blanks at their ends. A row that changes is marked with ``*`` and stands before
        those that do not.
    """
    width = max(width, MIN_WIDTH)
    blocks = [
        _paragraph(f"{plan['host']}, {plan['service']}: {outcome(plan)}", width),
        _settings_lines(plan, width),
        _memory_lines(plan["memory"], plan["service"], width) if plan.get("memory") else [],
        _connections_lines(plan["connections"], width) if plan.get("connections") else [],
        [line for notice in plan.get("notices") or [] for line in _paragraph(f"note: {notice}", width)],
    ]
    lines = []
    for block in blocks:
        lines += ([""] if lines and block else []) + block
    return lines


def document(plans: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the plans as data for other programs.

    Args:
        plans: all hosts' plans.

    Returns:
        ``plans``: copies of them, each with ``summary`` (rows by effect) and ``outcome`` (the sentence).
    """
    return {"plans": [{**copy.deepcopy(plan), "summary": summary(plan), "outcome": outcome(plan)} for plan in plans]}


_STYLE = """
:root { color-scheme: light dark; --page: #fff; --text: #1d2329; --soft: #57606a; --line: #d5dae0; --rest: #e4e8ec; --beyond: #f4f6f8;
  --p0: #2f5f8f; --p1: #3d7d6c; --p2: #7a5a95; --p3: #8f5d2f; --p4: #4a6e33; --p5: #8c4660; --p6: #4b5b77; --p7: #6b6424;
  --nothing: #57606a; --reload: #1f5fa8; --restart: #a83a1f; --first-start: #2b6b3c; }
@media (prefers-color-scheme: dark) { :root { --page: #15191e; --text: #dfe4ea; --soft: #9aa4af; --line: #363e47; --rest: #39424c;
  --beyond: #20262c; --nothing: #9aa4af; --reload: #7ab3f0; --restart: #f0937a; --first-start: #7fc793; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem 1rem 3rem; background: var(--page); color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 1rem; }
h2 { font-size: 1.25rem; margin: 0; }
h3 { font-size: 1rem; margin: 1.5rem 0 0.5rem; }
section { border-top: 1px solid var(--line); margin-top: 2rem; padding-top: 1.25rem; }
p { margin: 0.25rem 0; }
a { color: inherit; }
.soft, .nothing td { color: var(--soft); }
.notices { border-left: 3px solid var(--restart); margin: 1rem 0; padding: 0 0 0 1.75rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 0.9rem; }
th, td { border-bottom: 1px solid var(--line); padding: 0.35rem 1rem 0.35rem 0; text-align: left; vertical-align: top; }
th { color: var(--soft); font-weight: 600; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.reason { min-width: 16rem; }
.total td { font-weight: 600; }
code { font-family: ui-monospace, monospace; font-size: 0.95em; overflow-wrap: anywhere; }
.number code, .name code { white-space: nowrap; overflow-wrap: normal; }
.badge { border: 1px solid currentColor; border-radius: 0.7rem; display: inline-block; font-size: 0.8rem; line-height: 1.3; padding: 0 0.55rem;
  white-space: nowrap; }
.badge.nothing { color: var(--nothing); } .badge.reload { color: var(--reload); } .badge.restart { color: var(--restart); }
.badge.first-start { color: var(--first-start); }
.bar { display: flex; height: 2.2rem; margin: 0.5rem 0; position: relative; border: 1px solid var(--line); }
.bar span { color: #fff; flex-basis: 0; font-size: 0.75rem; line-height: 2.1rem; min-width: 0; overflow: hidden; text-align: center; }
.bar .mark { border-left: 2px dashed var(--text); bottom: -0.3rem; position: absolute; top: -0.3rem; width: 0; }
.swatch { border: 1px solid var(--line); color: #fff; display: inline-block; font-size: 0.75rem; line-height: 1.2rem; margin-right: 0.5rem;
  min-width: 1.3rem; text-align: center; }
.p0 { background: var(--p0); } .p1 { background: var(--p1); } .p2 { background: var(--p2); } .p3 { background: var(--p3); }
.p4 { background: var(--p4); } .p5 { background: var(--p5); } .p6 { background: var(--p6); } .p7 { background: var(--p7); }
.rest { background: var(--rest); } .beyond { background: var(--beyond); }
@media print { body { max-width: none; padding: 0; } section, tr, .bar { break-inside: avoid; } section { break-inside: auto; }
  .scroll { overflow: visible; } .bar, .bar span, .swatch { -webkit-print-color-adjust: exact; print-color-adjust: exact; } }
"""


def _tag(value: Any) -> str:
    """Escape a value for the page."""
    return escape(_clean(value), quote=True)


def _value_cell(value: Any) -> str:
    """Write a setting's value; a number, with its unit or without, goes to the right."""
    attribute = ' class="number"' if re.fullmatch(r"-?[0-9.]+ ?[A-Za-z]{0,3}", str(value)) else ""
    content = f"<code>{_tag(value)}</code>" if str(value) else ""
    return f"<td{attribute}>{content}</td>"


def _rows_html(plan: dict[str, Any]) -> str:
    """Write the table of the settings."""
    if not plan["rows"]:
        return ""
    lines = []
    for row in _ordered(plan):
        kind = row["effect"].replace(" ", "-") if row["effect"] in EFFECTS else "nothing"
        attribute = ' class="nothing"' if row["effect"] == "nothing" else ""
        lines.append(
            f'<tr{attribute}><td class="name"><code>{_tag(row["setting"])}</code></td>'
            f"{_value_cell(row['now'])}{_value_cell(row['planned'])}"
            f'<td><span class="badge {kind}">{_tag(row["effect"])}</span></td><td class="reason">{_tag(row["reason"])}</td></tr>'
        )
    head = '<tr><th scope="col">Setting</th><th scope="col">Now</th><th scope="col">Planned</th><th scope="col">Effect</th><th scope="col">Reason</th></tr>'
    return f"<h3>Settings</h3>{_scroll('Settings', head, lines)}"


def _scroll(label: str, head: str, lines: list[str]) -> str:
    """Write a table in a frame of its own that scrolls when the page is narrow."""
    body = "\n".join(lines)
    return f'<div class="scroll" role="region" aria-label="{_tag(label)}" tabindex="0"><table><thead>{head}</thead><tbody>\n{body}\n</tbody></table></div>\n'


def _segments(memory: dict[str, Any]) -> list[tuple[str, str, str, float, str]]:
    """Return the bar's segments that have a width: class, number, name, MiB, detail."""
    rest, beyond = _memory_parts(memory)[1:]
    found = [(f"p{at % COLOURS}", str(at + 1), part["name"], part["mib"], part["detail"]) for at, part in enumerate(memory["parts"])]
    found.append(("rest", "", "rest of the share", rest, "page cache and whatever is not planned"))
    found.append(("beyond", "", "rest of the host", beyond, "for other services and the system"))
    return found


def _memory_html(plan: dict[str, Any]) -> str:
    """Write the memory budget: a bar as long as the host's memory, and the figures."""
    memory = plan["memory"]
    segments = _segments(memory)
    planned, whole = _memory_parts(memory)[0], sum(segment[3] for segment in segments)
    label = ", ".join(f"{name} {_mib(mib)} MiB" for dummy, dummy, name, mib, dummy in segments)
    # A grow factor below 1 in sum would leave a gap, so each is a share of 100.
    strip = "".join(
        f'<span class="{kind}" style="flex-grow: {mib / whole * 100:.4f}" title="{_tag(f"{name}: {_mib(mib)} MiB")}">{number}</span>'
        for kind, number, name, mib, dummy in segments
        if mib > 0
    )
    limit = min(memory["limit_mib"] / whole, 1) if whole else 0
    mark = f'<span class="mark" style="left: {limit:.4%}" title="the limit: {_mib(memory["limit_mib"])} MiB"></span>'
    lines = [
        f'<tr><td><span class="swatch {kind}">{number or "&nbsp;"}</span>{_tag(name)}</td><td class="number">{_mib(mib)}</td>'
        f'<td class="number">{"" if kind == "beyond" else _percent(mib, memory["share_mib"])}</td><td class="reason">{_tag(detail)}</td></tr>'
        for kind, number, name, mib, detail in segments
    ]
    lines.insert(
        len(memory["parts"]),
        f'<tr class="total"><td>together</td><td class="number">{_mib(planned)}</td><td class="number">{_percent(planned, memory["share_mib"])}</td>'
        f"<td>{_tag(_verdict(memory))}</td></tr>",
    )
    head = '<tr><th scope="col">Part</th><th scope="col" class="number">MiB</th><th scope="col" class="number">of the share</th><th scope="col">Why</th></tr>'
    return (
        f"<h3>Memory</h3><p>{_mib(memory['share_mib'])} of the host's {_mib(memory['host_mib'])} MiB are for {_tag(plan['service'])}.</p>"
        f'<div class="bar" role="img" aria-label="{_tag(f"Memory: {label}; {_verdict(memory)}")}">{strip}{mark}</div>'
        '<p class="soft">The dashed line is the limit of what the plan may use at once.</p>'
        f"{_scroll('Memory', head, lines)}"
    )


def _connections_html(connections: dict[str, Any]) -> str:
    """Write how the number of connections comes about."""
    parts = [(part["count"], part["what"]) for part in connections["parts"]]
    rest = _connection_rest(connections)
    if rest:
        parts.append((rest[1], rest[0]))
    lines = [f'<tr><td>{_tag(what)}</td><td class="number">{_tag(count)}</td></tr>' for count, what in parts]
    lines.append(f'<tr class="total"><td>in all</td><td class="number">{_tag(connections["total"])}</td></tr>')
    head = '<tr><th scope="col">For</th><th scope="col" class="number">Connections</th></tr>'
    return f"<h3>Connections</h3>{_scroll('Connections', head, lines)}"


def _section(plan: dict[str, Any], at: int) -> str:
    """Write one host's part of the page."""
    notices = "".join(f"<li>{_tag(notice)}</li>" for notice in plan.get("notices") or [])
    return (
        f'<section id="plan-{at}"><h2>{_tag(plan["host"])} <span class="soft">{_tag(plan["service"])}</span></h2>\n<p>{_tag(outcome(plan))}</p>\n'
        + (f'<ul class="notices">{notices}</ul>\n' if notices else "")
        + _rows_html(plan)
        + (_memory_html(plan) if plan.get("memory") else "")
        + (_connections_html(plan["connections"]) if plan.get("connections") else "")
        + "</section>\n"
    )


def _overview(plans: list[dict[str, Any]]) -> str:
    """Write one line for each host, when there are several."""
    if len(plans) < 2:
        return "" if plans else "<p>No host has a plan.</p>"
    lines = [
        f'<tr><td><a href="#plan-{at}">{_tag(plan["host"])}</a></td><td>{_tag(plan["service"])}</td><td>{_tag(outcome(plan))}</td></tr>'
        for at, plan in enumerate(plans, 1)
    ]
    head = '<tr><th scope="col">Host</th><th scope="col">Service</th><th scope="col">What happens</th></tr>'
    return _scroll("Hosts", head, lines)


def html(plans: list[dict[str, Any]], title: str) -> str:
    """Write the plans as one page that needs nothing else: no script, no font, no image.

    Args:
        plans: all hosts' plans.
        title: the page's title, plain text.

    Returns:
        The page; every value in it is escaped.
    """
    sections = "".join(_section(plan, at) for at, plan in enumerate(plans, 1))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{_tag(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{_tag(title)}</h1>\n{_overview(plans)}{sections}</body>\n</html>\n"
    )

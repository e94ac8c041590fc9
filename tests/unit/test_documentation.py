"""What the documentation names exists, and what is generated is up to date."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import generate
import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("roles/*/README.md"))]
FENCE = re.compile(r"^ *(```|~~~).*?^ *\1", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^()\s]+)\)|^\[[^\]]+\]: *(\S+)|(?:src|href)=\"([^\"]+)\"", re.MULTILINE)


def every_page(test: Any) -> Any:
    """Run a test once for each page."""
    return pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))(test)


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, made as the code hosts make them, and its explicit ones."""
    found: set[str] = set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text))
    for heading in re.findall(r"^#+ +(.+?)\s*$", FENCE.sub("", text), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        count = 0
        while (numbered := f"{anchor}-{count}" if count else anchor) in found:
            count += 1
        found.add(numbered)
    return found


def links(text: str) -> Iterator[str]:
    """Yield the targets of a page's links and pictures, those in code blocks left out."""
    for match in LINK.finditer(FENCE.sub("", text)):
        yield "".join(group or "" for group in match.groups())


def broken(page: Path, root: Path) -> list[str]:
    """Return the links of a page that lead nowhere: no such file in the checkout, or no such heading."""
    bad = []
    for target in links(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        name, _hash, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists() or not path.is_relative_to(root):
            bad.append(target)
        elif anchor and path.suffix == ".md" and anchor not in anchors(path.read_text(encoding="utf-8")):
            bad.append(target)
    return bad


def make_targets() -> set[str]:
    """Return the targets of the Makefile."""
    rules = re.findall(r"^([\w.-]+(?: [\w.-]+)*):(?!=)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    return {target for rule in rules for target in rule.split()}


def named_targets(text: str) -> set[str]:
    """Return the targets of the make commands in code: `make test`, `make lint|unit`, `make molecule SCENARIO=x`, a line of a block."""
    commands = re.findall(r"(?:`|^ *(?:\$ )?)(?:\w+=\S+ )*make ((?:[\w-]+=\S+ )*[a-z][\w|-]*)", text, re.MULTILINE)
    return {target for command in commands for target in command.split(" ")[-1].split("|") if target}


def named_playbooks(text: str) -> set[str]:
    """Return the playbooks that are named by path (playbooks/x.yml) or as part of the collection (mlops.mlflow.x after -i …)."""
    by_path = re.findall(r"(?<![\w/])playbooks/(\w+)\.yml", text)
    by_name = re.findall(r"ansible-playbook [^\n`]*mlops\.mlflow\.(\w+)", text)
    return {*by_path, *by_name}


def test_generated_pages_are_fresh() -> None:
    """`make docs-update` was run after the last change."""
    assert [str(page.relative_to(ROOT)) for page in generate.stale(ROOT)] == []


def test_a_change_makes_pages_stale(tmp_path: Path) -> None:
    """The check above can fail, and writing the pages ends it."""
    meta = tmp_path / "roles/thing/meta"
    meta.mkdir(parents=True)
    (tmp_path / "docs").mkdir()
    spec = "argument_specs: {main: {short_description: A thing, options: {thing_size: {type: int, description: %s}}}}\n"
    (meta / "argument_specs.yml").write_text(spec % "Its size.", encoding="utf-8")
    for page, text in generate.generate(tmp_path).items():
        page.write_text(text, encoding="utf-8")
    assert generate.stale(tmp_path) == []
    (meta / "argument_specs.yml").write_text(spec % "Its size in bytes.", encoding="utf-8")
    assert generate.stale(tmp_path) == [tmp_path / "roles/thing/README.md", tmp_path / "docs/variables.md"]


@pytest.mark.parametrize(
    ("ansible", "markdown"),
    [
        ("Set O(size) to V(1\\)2).", "Set `size` to `1)2`."),
        ("See L(it, https://example.org/a,b), U(https://example.org).", "See [it](https://example.org/a,b), <https://example.org>."),
        ("C(a|b), B(bold), I(slanted), E(HOME), M(mlops.mlflow.x)", "`a|b`, **bold**, *slanted*, `HOME`, `mlops.mlflow.x`"),
        ("O(mlops.mlflow.mlflow#role:main:mlflow_port) and RV(value)", "`mlflow_port` and `value`"),
        ("<name> and * stay, `<code> *` too", "\\<name> and \\* stay, `<code> *` too"),
        ("PostgreSQL(R) in SQL(x)", "PostgreSQL(R) in SQL(x)"),
    ],
)
def test_ansible_markup_becomes_markdown(ansible: str, markdown: str) -> None:
    """Each form of markup that a description may hold."""
    assert generate.markup(ansible) == markdown


def test_nested_options_are_listed() -> None:
    """The keys of a list's elements and of a dict stand in the table, with the cells' pipes escaped."""
    options = {
        "role_users": {"type": "list", "elements": "dict", "default": [], "options": {"name": {"required": True, "description": "a|b"}}},
        "role_tls": {"type": "dict", "options": {"mode": {"choices": ["on", "off"], "default": "on", "description": "Whether."}}},
    }
    text = generate.options_table("Variable", options, {}, "defaults/main.yml")
    assert "| `role_users` | list of dict | `[]` |  |" in text
    assert "| `role_users[].name` | str | **required** | a\\|b |" in text
    assert "| `role_tls.mode` | str | `on` | Whether. One of `on`, `off`. |" in text


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("{{ undef(hint='a password') }}", "none: a password"),
        ("{{ site_x | default(undef(hint='role_x: a key, the same on every host')) }}", "from the site's plan, else none: a key, the same on every host"),
        ("{{ site_x | default('' if role_y else undef(hint='role_x: 12 characters')) }}", "from the site's plan, else none: 12 characters"),
        ("{{ site_x | default('a') }}", "from the site's plan, else `'a'`"),
        ("{{ 'a very long template' ~ role_y ~ role_z ~ 'that no reader wants' }}", "see [defaults](defaults/main.yml)"),
        ("", '`""`'),
        (12, "`12`"),
    ],
)
def test_defaults_are_readable(value: Any, cell: str) -> None:
    """A template says what it stands for; one that asks for a value says which."""
    assert generate.default("role_x", {}, {"role_x": value}, "defaults/main.yml") == cell


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link, picture and anchor."""
    assert broken(page, ROOT) == []


def test_broken_links_are_seen(tmp_path: Path) -> None:
    """Files, anchors and links out of the checkout; code blocks are no links."""
    page = tmp_path / "page.md"
    text = "# One `two`\n[a](#one-two) [b](#no) [c](no.md) [d](../no.md) [e](page.md#one-two) [f](https://example.org)\n```\n[g](no)\n```\n"
    page.write_text(text, encoding="utf-8")
    assert broken(page, tmp_path) == ["#no", "no.md", "../no.md"]


@every_page
def test_make_targets_exist(page: Path) -> None:
    """Every `make x`."""
    assert named_targets(page.read_text(encoding="utf-8")) - make_targets() == set()


def test_make_commands_are_seen() -> None:
    """In code spans, in blocks, with alternatives and with variables; not in prose."""
    text = "To make sure, run `make lint|unit` and `make molecule SCENARIO=x`:\n\n    $ make demo\nPYTHON=x make PYTHON=y env\n"
    assert named_targets(text) == {"lint", "unit", "molecule", "demo", "env"}
    assert {"help", "env"} <= make_targets()


@every_page
def test_playbooks_exist(page: Path) -> None:
    """Every playbook that a page names."""
    assert {name for name in named_playbooks(page.read_text(encoding="utf-8")) if not (ROOT / f"playbooks/{name}.yml").exists()} == set()


def test_playbook_names_are_seen() -> None:
    """By path and by the collection's name."""
    assert named_playbooks("`ansible-playbook -i x mlops.mlflow.site` or playbooks/verify.yml") == {"site", "verify"}

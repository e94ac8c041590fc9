"""The house rules that every role keeps."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import generate
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path for path in (ROOT / "roles").iterdir() if any(part.is_file() for part in path.rglob("*")))
TASK_FILES = sorted(ROOT.glob("roles/*/tasks/**/*.yml"))

SECRET = re.compile(r"(password|passphrase|secret|token|key)(_|$)")
SWALLOWED = re.compile(r"ignore_errors\s*:|failed_when:\s*false|\|\|\s*true\b", re.IGNORECASE)
GROUPS = re.compile(r"\bgroup_names\b|\bin groups\b|\bgroups\s*(\[|\||\.\w)|[\"']groups[\"']")
SITE_VARIABLE = re.compile(r"(?<![\w./-])site_\w+(?!\s*\|\s*(ansible\.builtin\.)?(default|d)\()\b")
ROLE_CALLS = ("include_role", "import_role")
CONTENTS = re.compile(r"(ansible\.builtin\.)?(import|include)_\w+")


def every_role(test: Any) -> Any:
    """Run a test once for each role."""
    return pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)(test)


def every_task_file(test: Any) -> Any:
    """Run a test once for each task file."""
    return pytest.mark.parametrize("path", TASK_FILES, ids=shown)(test)


def shown(path: Path) -> str:
    """Return a path the way the reader knows it."""
    return str(path.relative_to(ROOT))


def load(path: Path) -> Any:
    """Return what a YAML file holds; Ansible's own tags read as plain values."""
    return yaml.load(path.read_text(encoding="utf-8"), generate.Loader)


def entry_points(role: Path) -> dict[str, dict[str, Any]]:
    """Return the options of each entry point."""
    specs = load(role / "meta/argument_specs.yml")["argument_specs"]
    return {name: spec.get("options") or {} for name, spec in specs.items()}


def defaults(role: Path) -> dict[str, Any]:
    """Return a role's defaults; a role may have none."""
    path = role / "defaults/main.yml"
    return (load(path) or {}) if path.exists() else {}


def only_imports(path: Path) -> bool:
    """Tell whether every task of a file leads to another file or role."""
    return all(any(CONTENTS.fullmatch(key) for key in task) for task in tasks(load(path)))


def is_contents(path: Path) -> bool:
    """Tell whether a task file is a table of contents: main.yml, and other entry points of a role that do no work of their own."""
    spec = path.parent.parent / "meta/argument_specs.yml"
    return path.stem == "main" or (spec.exists() and path.stem in load(spec)["argument_specs"] and only_imports(path))


def is_literal(value: Any) -> bool:
    """Tell whether a default holds no template."""
    return "{{" not in str(value) and "{%" not in str(value)


def tasks(content: Any) -> Iterator[dict[str, Any]]:
    """Yield every task, those in blocks included."""
    for task in content or []:
        yield task
        for part in ("block", "rescue", "always"):
            yield from tasks(task.get(part))


def module(task: dict[str, Any], *names: str) -> Any:
    """Return the arguments of a task's module when it is one of the named ones, else None."""
    return next((value for key, value in task.items() if key.rpartition(".")[2] in names), None)


def internal_names(task: dict[str, Any]) -> Iterator[str]:
    """Yield the names that a task gives to variables of its own; those of a connection are Ansible's."""
    if "register" in task:
        yield task["register"]
    yield from (name for name in module(task, "set_fact") or {} if name != "cacheable")
    yield from (name for key, name in (task.get("loop_control") or {}).items() if key in ("loop_var", "index_var"))
    if module(task, *ROLE_CALLS) is None:
        yield from (name for name in task.get("vars") or {} if not name.startswith("ansible_"))


def sources(*folders: str) -> Iterator[tuple[str, str]]:
    """Yield place and text of every line under folders (or files) of the checkout, except whole-line YAML comments."""
    for folder in folders:
        start = ROOT / folder
        for path in sorted(start.rglob("*")) if start.is_dir() else [start]:
            if path.is_file() and path.suffix not in (".pyc", ".md"):
                for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
                    if not line.lstrip().startswith("# "):
                        yield f"{shown(path)}:{number}", line


def offences(pattern: re.Pattern[str], *folders: str) -> list[str]:
    """Return the lines that match, with their places."""
    return [f"{place}: {line.strip()}" for place, line in sources(*folders) if pattern.search(line)]


def test_there_are_roles() -> None:
    """The tests below would all pass on nothing."""
    assert ROLES and TASK_FILES


@every_role
def test_specs_and_defaults_name_the_same_variables(role: Path) -> None:
    """A variable outside defaults/main.yml is required or a secret; one outside the specs does not exist."""
    specs, values = entry_points(role), defaults(role)
    assert set(values) <= set(specs["main"]), "in defaults/main.yml, but not in the specs"
    for options in specs.values():
        for name, option in options.items():
            if option.get("required"):
                assert name not in values or "undef(" in str(values[name]), f"{name} is required and has a default"
            elif name not in values:
                assert SECRET.search(name) and "default" not in option, f"{name} is missing in defaults/main.yml"


@every_role
def test_specs_and_defaults_give_the_same_values(role: Path) -> None:
    """What the documentation says is what happens."""
    values = defaults(role)
    for options in entry_points(role).values():
        for name, option in options.items():
            if "default" in option and name in values and is_literal(option["default"]) and is_literal(values[name]):
                said, done = option["default"], values[name]
                assert (type(said), said) == (type(done), done), name


@every_role
def test_every_variable_is_described(role: Path) -> None:
    """Each option has a type and a description, also the nested ones."""
    for options in entry_points(role).values():
        for path, option in generate.flatten(options):
            assert option.get("type") and option.get("description"), path


@every_role
def test_every_default_has_a_comment(role: Path) -> None:
    """The line above a variable says what it does."""
    path = role / "defaults/main.yml"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    bare = [line for above, line in zip([""] + lines, lines) if re.match(r"\w+:", line) and not above.startswith("# ")]
    assert not bare


@every_role
def test_public_names_start_with_the_role(role: Path) -> None:
    """Nobody else's variable is taken; the very name of a role is its switch."""
    names = {name for options in entry_points(role).values() for name in options} | set(defaults(role))
    assert [name for name in sorted(names - {role.name}) if not name.startswith(f"{role.name}_")] == []


@every_role
def test_internal_names_say_so(role: Path) -> None:
    """Registered variables, facts, loop and task variables, and those of vars/, start with __role_."""
    names = {name for path in role.glob("vars/*.yml") for name in load(path) or {}}
    for path in [*role.glob("tasks/**/*.yml"), *role.glob("handlers/**/*.yml")]:
        names |= {name for task in tasks(load(path)) for name in internal_names(task)}
    assert [name for name in sorted(names) if not name.startswith(f"__{role.name}_")] == []


@every_role
def test_the_parts_that_each_role_has(role: Path) -> None:
    """A reader finds the same files in every role."""
    for part in ("README.md", "tasks/main.yml", "meta/argument_specs.yml", "meta/main.yml"):
        assert (role / part).is_file(), part


@every_task_file
def test_task_files_are_short(path: Path) -> None:
    """A table of contents is seen at a glance; the others are one topic each."""
    limit = 30 if is_contents(path) else 100
    assert len(path.read_text(encoding="utf-8").splitlines()) <= limit


@every_role
def test_main_is_a_table_of_contents(role: Path) -> None:
    """The first file that a reader opens shows the order of things, and does none of them."""
    assert only_imports(role / "tasks/main.yml")


def test_work_is_no_table_of_contents(tmp_path: Path) -> None:
    """An entry point counts by what is in it, whatever it is called."""
    (tmp_path / "meta").mkdir()
    (tmp_path / "tasks").mkdir()
    (tmp_path / "meta/argument_specs.yml").write_text("argument_specs: {main: {}, start: {}}\n", encoding="utf-8")
    path, other = tmp_path / "tasks/start.yml", tmp_path / "tasks/other.yml"
    imports = "- {name: A, ansible.builtin.import_tasks: a.yml}\n- {name: B, ansible.builtin.include_role: {name: b}}\n"
    for content, expected in ((imports, True), (imports + "- {name: C, ansible.builtin.command: c}\n", False)):
        path.write_text(content, encoding="utf-8")
        other.write_text(content, encoding="utf-8")
        assert (is_contents(path), is_contents(other)) == (expected, False)


@every_task_file
def test_task_names_say_their_file(path: Path) -> None:
    """The output of a run leads to the file: `configure | Write the settings`."""
    prefix = "" if is_contents(path) else f"{path.stem} | "
    assert [task for task in tasks(load(path)) if not re.match(re.escape(prefix) + "[A-Z]", task.get("name", ""))] == []


def test_no_failure_is_swallowed() -> None:
    """A failure is expected, and handled by name, or it stops."""
    assert offences(SWALLOWED, "roles", "playbooks", "plugins", "molecule", "testbed", ".ci", "Makefile") == []


def test_only_playbooks_know_groups() -> None:
    """Roles and plugins work in any inventory."""
    assert offences(GROUPS, "roles", "plugins") == []


def test_roles_do_without_a_site() -> None:
    """What playbooks plan for a site is a variable named site_*; a role reads it with a default and never sets it."""
    parts = [shown(path) for role in ROLES for path in role.iterdir() if path.name != "meta"]
    assert offences(SITE_VARIABLE, *parts) == []


def test_what_is_installed_first_is_what_roles_install() -> None:
    """A package that no role wants any more would be installed for nothing."""
    first = re.findall(r"'([a-z0-9-]+)'", "".join(re.findall(r"\[.*?\]", load(ROOT / "playbooks/group_vars/all.yml")["site_first_packages"])))
    variables = [item for path in ROOT.glob("roles/*/vars/main.yml") for item in load(path).items()]
    wanted = "".join(str(value) for name, value in variables if name.endswith(("_packages", "_programs")))
    assert len(first) == 5
    assert [name for name in first if f"'{name}'" not in wanted] == []


@pytest.mark.parametrize(
    ("pattern", "caught", "passed"),
    [
        (SWALLOWED, "  ignore_errors: true", "shutil.rmtree(draft, ignore_errors=True)"),
        (SWALLOWED, "  failed_when: False", "  failed_when: __x.rc > 1"),
        (SWALLOWED, "rm x || true", "a || b"),
        (GROUPS, "{{ groups['db'] }}", "  groups: [ssl-cert]"),
        (GROUPS, "when: \"'db' in group_names\"", "match.groups()"),
        (GROUPS, "loop: \"{{ groups.db }}\"", "system_groups[0]"),
        (SITE_VARIABLE, "x: \"{{ site_hosts }}\"", "x: \"{{ site_hosts | default([]) }}\""),
        (SITE_VARIABLE, "    site_hosts: 1", "x: \"{{ __postgresql_site_hosts }}\""),
    ],
)
def test_the_patterns_see_what_they_should(pattern: re.Pattern[str], caught: str, passed: str) -> None:
    """A pattern that matches nothing would keep its test green for ever."""
    assert pattern.search(caught)
    assert not pattern.search(passed)

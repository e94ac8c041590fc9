"""Writes the pages that repeat what the code says: each role's README.md, docs/variables.md, docs/plugins.md and the tables in docs/sizing.md and
docs/performance.md.

usage: python docs/generate.py [--check]

With --check nothing is written; stale files are named, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import json
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
# The modules import each other by the collection's full name, which is found only there.
sys.path.insert(0, str(ROOT / ".collections"))

from ansible_collections.mlops.mlflow.plugins.module_utils import sizing, tuning  # noqa: E402

COLLECTION = "mlops.mlflow"
NOTICE = "<!-- Generated from {sources}; `make docs-update` writes it again. -->\n"
LONGEST_DEFAULT = 60
SECTION = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

# The hosts of the tables in docs/sizing.md: GiB of memory and cores. Their disk is an SSD of 100 GB.
SIZES = ((4, 2), (16, 4), (64, 16))
DISK_MIB = 100 * 1024
SIZED = (
    "shared_buffers",
    "work_mem",
    "maintenance_work_mem",
    "autovacuum_work_mem",
    "autovacuum_max_workers",
    "effective_cache_size",
    "max_parallel_workers",
    "max_wal_size",
    "max_slot_wal_keep_size",
)
# Examples of what an inventory decides.
ACCESS = {
    "listen_addresses": "localhost, 192.0.2.10",
    "port": 5432,
    "password_encryption": "scram-sha-256",
    "ssl": "on",
    "ssl_cert_file": "/etc/ssl/certs/mlops-host.crt",
    "ssl_key_file": "/etc/ssl/private/mlops-host.key",
    "ssl_min_protocol_version": "TLSv1.2",
}

PLUGIN_TITLES = {"modules": "Modules", "filter": "Filters", "lookup": "Lookups", "test": "Tests"}


class Loader(yaml.SafeLoader):
    """A safe loader that reads Ansible's tags, such as !unsafe, as the plain values they mark."""


Loader.add_multi_constructor("!", lambda loader, _suffix, node: loader.construct_yaml_str(node))


@dataclasses.dataclass(frozen=True)
class Role:
    """What a role says about itself."""

    name: str
    entry_points: dict[str, dict[str, Any]]
    defaults: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Plugin:
    """What a plugin says about itself."""

    kind: str
    name: str
    documentation: dict[str, Any]
    returns: dict[str, Any]


def load_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file, empty when there is no such file."""
    return (yaml.load(path.read_text(encoding="utf-8"), Loader) or {}) if path.exists() else {}


def load_roles(root: Path) -> list[Role]:
    """Return the roles that have argument specs, by name."""
    roles = []
    for spec in sorted(root.glob("roles/*/meta/argument_specs.yml")):
        role = spec.parent.parent
        roles.append(Role(role.name, load_yaml(spec).get("argument_specs") or {}, load_yaml(role / "defaults/main.yml")))
    return roles


def plugin_documents(path: Path) -> dict[str, Any]:
    """Return the documents of a plugin: its upper-case YAML strings, or the sections of its own YAML file."""
    if path.suffix == ".yml":
        return load_yaml(path)
    documents = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.Constant):
            name = node.targets[0].id
            if name in ("DOCUMENTATION", "RETURN"):
                documents[name] = yaml.load(node.value.value, Loader)
    documentation = documents.get("DOCUMENTATION") or {}
    for name in documentation.get("extends_documentation_fragment", []):
        shared = fragment(path.parents[1] / "doc_fragments" / f"{name.rsplit('.', 1)[-1]}.py")
        documentation["options"] = shared["options"] | documentation.get("options", {})
    return documents


def fragment(path: Path) -> dict[str, Any]:
    """Return what several modules have in common."""
    (shared,) = [node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)]
    (text,) = [node.value.value for node in shared.body if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)]
    return yaml.load(text, Loader)


def load_plugins(root: Path) -> list[Plugin]:
    """Return the documented plugins, by kind and name."""
    plugins = []
    for path in sorted([*root.glob("plugins/*/*.py"), *root.glob("plugins/*/*.yml")]):
        documents = plugin_documents(path) if path.parent.name in PLUGIN_TITLES else {}
        if documents.get("DOCUMENTATION"):
            documentation = documents["DOCUMENTATION"]
            plugins.append(Plugin(path.parent.name, documentation.get("name", path.stem), documentation, documents.get("RETURN") or {}))
    return sorted(plugins, key=lambda plugin: (list(PLUGIN_TITLES).index(plugin.kind), plugin.name))


def code(text: str) -> str:
    """Return text as a Markdown code span, whatever backticks it contains."""
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def markup(text: str) -> str:
    """Return a description as Markdown: Ansible's C(), V(), O(), … translated, the rest kept literal."""

    def translate(match: re.Match[str]) -> str:
        kind, value = match.group(1), re.sub(r"\\(.)", r"\1", match.group(2))
        if kind in ("L", "R"):
            title, _comma, target = value.partition(",")
            return f"[{title.strip()}]({target.strip()})" if kind == "L" else title.strip()
        if kind == "U":
            return f"<{value}>"
        if kind in ("B", "I"):
            return f"**{value}**" if kind == "B" else f"*{value}*"
        if kind in ("O", "RV"):
            value = re.sub(r"^[\w.]+#\w+:(\w+:)?", "", value)
        return code(value)

    pieces = re.split(r"(`+[^`]+`+|\b(?:[BCEILMOPRUV]|RV)\((?:\\.|[^\\)])*\))", text)
    for index, piece in enumerate(pieces):
        if index % 2 == 0:
            pieces[index] = re.sub(r"([*<])", r"\\\1", piece)
        elif not piece.startswith("`"):
            pieces[index] = re.sub(r"^(\w+)\((.*)\)$", translate, piece, flags=re.DOTALL)
    return "".join(pieces)


def paragraphs(description: str | list[str] | None) -> list[str]:
    """Return a description's paragraphs in Markdown, each on one line."""
    entries = [description] if isinstance(description, str) else description or []
    return [markup(" ".join(str(entry).split())) for entry in entries]


def purpose(spec: dict[str, Any]) -> str:
    """Return an entry point's short description as a sentence."""
    text = " ".join(paragraphs(spec.get("short_description")))
    return text if text.endswith((".", "!", "?")) else f"{text}."


def literal(value: Any) -> str:
    """Return a value the way one writes it in YAML, on one line."""
    if isinstance(value, str) and value:
        return " ".join(value.split())
    return json.dumps(value, ensure_ascii=False)


def default(name: str, option: dict[str, Any], defaults: dict[str, Any], source: str) -> str:
    """Return the cell that says what a variable is when it is not set."""
    if option.get("required"):
        return "**required**"
    if "default" not in option and name not in defaults:
        return ""
    text = literal(option.get("default", defaults.get(name)))
    derived = re.fullmatch(r"\{\{ site_\w+ \| default\((.*)\) \}\}", text)
    before, text = ("from the site's plan, else ", derived.group(1)) if derived else ("", text)
    # The hint starts with the variable's name, which the reader of a table has before him.
    hint = re.search(r"undef\(hint='(?:\w+: )?([^']*)'\)", text)
    if hint:
        return f"{before}none: {markup(hint.group(1))}"
    return before + code(text) if derived or len(text) <= LONGEST_DEFAULT else f"see [defaults]({source})"


def type_name(option: dict[str, Any]) -> str:
    """Return the type in words, with that of a list's elements."""
    name = str(option.get("type", "str"))
    return f"{name} of {option['elements']}" if "elements" in option else name


def description(option: dict[str, Any]) -> str:
    """Return a description on one line, with the choices at its end."""
    text = " ".join(paragraphs(option.get("description")))
    choices = option.get("choices") or []
    return f"{text} One of {', '.join(code(literal(choice)) for choice in choices)}.".strip() if choices else text


def flatten(options: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every option with its path, the options inside lists (`name[].key`) and dicts (`name.key`) included."""
    for name, option in options.items():
        option = option or {}
        yield prefix + name, option
        inner = "[]." if option.get("type") == "list" else "."
        nested = option.get("options") or option.get("suboptions") or option.get("contains") or {}
        yield from flatten(nested, prefix + name + inner)


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def options_table(title: str, options: dict[str, Any], defaults: dict[str, Any], source: str) -> str:
    """Return the table of options, nested ones included; defaults and source (its link) fill in what the spec leaves open."""
    rows = [
        [code(path), type_name(option), default(path, option, defaults, source), description(option)]
        for path, option in flatten(options)
    ]
    return table([title, "Type", "Default", "Description"], rows)


def render_role(role: Role) -> str:
    """Return a role's README.md."""
    parts = [NOTICE.format(sources="meta/argument_specs.yml and defaults/main.yml"), f"# {COLLECTION}.{role.name}\n"]
    for name, spec in role.entry_points.items():
        if name != "main":
            parts.append(f"## Entry point {code(name)}\n")
        parts += [f"{text}\n" for text in (purpose(spec), *paragraphs(spec.get("description")))]
        if spec.get("options"):
            if name == "main":
                parts.append("## Variables\n")
            parts.append(options_table("Variable", spec["options"], role.defaults, "defaults/main.yml"))
    return "\n".join(parts)


def render_variables(roles: list[Role]) -> str:
    """Return docs/variables.md: what one may set, by role."""
    parts = [
        NOTICE.format(sources="the roles' argument specs and defaults"),
        "# Variables\n",
        "What an inventory may set, by role. The link at each role leads to the details, such as the keys inside lists.\n",
        "".join(f"- [{role.name}](#{role.name})\n" for role in roles),
    ]
    for role in roles:
        main = role.entry_points.get("main", {})
        page = f"../roles/{role.name}"
        parts.append(f"## {role.name}\n")
        parts.append(f"{purpose(main)} [Details]({page}/README.md).\n")
        options = {name: option or {} for point in role.entry_points.values() for name, option in (point.get("options") or {}).items()}
        if options:
            rows = [
                [code(name), default(name, option, role.defaults, f"{page}/defaults/main.yml"), description(option)]
                for name, option in options.items()
            ]
            parts.append(table(["Variable", "Default", "Description"], rows))
    return "\n".join(parts)


def render_plugins(plugins: list[Plugin]) -> str:
    """Return docs/plugins.md."""
    parts = [
        NOTICE.format(sources="the documentation of the plugins"),
        "# Plugins\n",
        f"`ansible-doc -t TYPE {COLLECTION}.NAME` prints the same, with examples.\n",
    ]
    kind = None
    for plugin in plugins:
        if plugin.kind != kind:
            kind = plugin.kind
            parts.append(f"## {PLUGIN_TITLES[kind]}\n")
        documentation = plugin.documentation
        parts.append(f"### {plugin.name}\n")
        parts += [f"{text}\n" for text in paragraphs(documentation.get("description") or documentation.get("short_description"))]
        if documentation.get("options"):
            parts.append(options_table("Option", documentation["options"], {}, ""))
        if plugin.returns:
            rows = [[code(path), type_name(value), description(value)] for path, value in flatten(plugin.returns)]
            parts.append(table(["Returns", "Type", "Description"], rows))
    return "\n".join(parts)


def sized(gib: int, cpus: int, shared: bool) -> tuple[tuning.Host, tuning.Plan]:
    """Return a database host and its plan; MLflow runs on the same host, or on another one of the same size."""
    memory_mib = gib * 1024
    workers = sizing.mlflow_workers(cpus, memory_mib, database=shared)
    share = tuning.memory_share(memory_mib, workers if shared else 0)
    connections = workers * sizing.CONNECTIONS_OF_WORKER + sizing.RESERVED_CONNECTIONS
    host = tuning.Host(memory_mib, cpus, connections, share, disk_mib=DISK_MIB, workers=workers)
    return host, tuning.plan(host)


def reserve_table() -> str:
    """Return what is connected besides MLflow's servers."""
    rows = [[code(name) if "_" in name else name, str(count)] for name, count in sizing.RESERVE.items()]
    return table(["for", "connections"], [*rows, ["together", str(sizing.RESERVED_CONNECTIONS)]])


def results_table() -> str:
    """Return what hosts of three sizes get, alone and shared with MLflow."""
    plans = [sized(gib, cpus, shared) for shared in (False, True) for gib, cpus in SIZES]
    rows = [
        ["cores", *(str(host.cpus) for host, _plan in plans)],
        ["MLflow's workers", *(str(host.workers) for host, _plan in plans)],
        [code("max_connections"), *(str(host.connections) for host, _plan in plans)],
        ["PostgreSQL's share of the memory", *(f"{host.share:.0%}" for host, _plan in plans)],
        *([code(name), *(str(plan.settings[name]) for _host, plan in plans)] for name in SIZED),
        ["worst case, processes included, MiB", *(str(sum(part["mib"] for part in plan.memory)) for _host, plan in plans)],
    ]
    sizes = [f"{gib} GiB, {where}" for where in ("alone", "shared") for gib, _cpus in SIZES]
    return table(["", *sizes], rows)


def reasons_table() -> str:
    """Return every setting with its reason, on a host of 16 GiB and 4 cores of its own."""
    host, _plan = sized(16, 4, shared=False)
    plan = tuning.plan(host, access=ACCESS)
    return table(["Setting", "Value", "Why"], [[code(name), code(str(value)), plan.reasons[name]] for name, value in plan.settings.items()])


def disks_table() -> str:
    """Return the settings that differ by the kind of disk."""
    host, solid = sized(16, 4, shared=False)
    hard = tuning.plan(dataclasses.replace(host, disk="hdd"))
    rows = [[code(name), str(value), str(hard.settings[name])] for name, value in solid.settings.items() if value != hard.settings[name]]
    return table(["Setting", "ssd", "hdd"], rows)


def worst_case(connections: int, buffers: float, work: float, vacuum: float, maintenance: float) -> float:
    """Return the memory that settings allow, in the unit of the arguments: hashes of twice work_mem, and three autovacuum workers."""
    return buffers + connections * work * 2 + 3 * vacuum + maintenance


def ours(gib: int, cpus: int, connections: int) -> float:
    """Return the worst case of this collection's plan, GiB; not a number where it refuses one."""
    try:
        settings = tuning.plan(tuning.Host(gib * 1024, cpus, connections, disk_mib=DISK_MIB)).settings
    except tuning.Refused:
        return float("nan")
    names = ("shared_buffers", "work_mem", "autovacuum_work_mem", "maintenance_work_mem")
    return worst_case(connections, *(sizing.parse_memory(settings[name]) / 1024**3 for name in names))


def pgtune(gib: int, cpus: int, connections: int) -> float:
    """Return the worst case of pgtune's plan for OLTP, GiB (configurationSlice.js at commit 01bb6447)."""
    buffers, maintenance = gib / 4, min(gib / 16, 8)
    processes = cpus if cpus >= 4 else 8
    work = max((gib - buffers) / ((connections + processes) * 3), 4 / 1024)
    return worst_case(connections, buffers, work, min(maintenance, 2), maintenance)


def timescaledb_tune(gib: int, cpus: int, connections: int) -> float:
    """Return the worst case of timescaledb-tune's plan, GiB (pkg/pgtune/memory.go at commit 2776a5f3)."""
    maintenance = min(gib * 128, 2047) / 1024
    # Half cores are rounded up, as Go does it.
    work = gib * 128 / 1024 / connections / ((cpus + 1) // 2)
    return worst_case(connections, gib / 4, work, maintenance, maintenance)


def defaults(_gib: int, _cpus: int, connections: int) -> float:
    """Return the worst case of PostgreSQL's own defaults, GiB."""
    return worst_case(connections, 128 / 1024, 4 / 1024, 64 / 1024, 64 / 1024)


def comparison_table() -> str:
    """Return the worst cases of the usual calculators as parts of the host's memory, at the same number of connections."""
    rows = []
    for gib, cpus in SIZES:
        for connections in (100, sized(gib, cpus, shared=False)[0].connections):
            worst = [tool(gib, cpus, connections) / gib for tool in (ours, pgtune, timescaledb_tune, defaults)]
            rows.append([f"{gib} GiB, {cpus} cores", str(connections), *(f"{ratio:.0%}" for ratio in worst)])
    return table(["Host", "Connections", "this collection", "pgtune", "timescaledb-tune", "PostgreSQL's defaults"], rows)


def refusals() -> str:
    """Return two refusals as a block of code: one value that is too large, and too many connections."""
    many = 8 * sizing.CONNECTIONS_OF_WORKER + sizing.RESERVED_CONNECTIONS
    blocks = []
    for host, given in ((tuning.Host(4096, 2, 100), {"work_mem": "64MB"}), (tuning.Host(2048, 2, many, workers=8), {})):
        try:
            tuning.plan(host, given)
        except tuning.Refused as refusal:
            blocks.append(textwrap.fill(str(refusal), 140, initial_indent="    ", subsequent_indent="    ") + "\n")
    return "\n".join(blocks)


def measured(name: str) -> str:
    """Return what a benchmark found, without the title of its page."""
    return (ROOT / f"benchmarks/results/{name}.md").read_text(encoding="utf-8").partition("\n\n")[2]


SECTIONS = {
    "serving": lambda: measured("serving"),
    "settings": lambda: measured("settings"),
    "deploying": lambda: measured("deploying"),
    "airgap": lambda: measured("airgap"),
    "import": lambda: measured("import"),
    "refusals": refusals,
    "reserve": reserve_table,
    "results": results_table,
    "reasons": reasons_table,
    "disks": disks_table,
    "comparison": comparison_table,
}


def fill(text: str) -> str:
    """Return a page with its marked sections written anew; what stands between them is somebody's own."""
    return SECTION.sub(lambda match: f"{match.group(1)}\n{SECTIONS[match.group(2)]()}\n{match.group(3)}", text)


def generate(root: Path) -> dict[Path, str]:
    """Return every generated page of a checkout, and those with generated sections: its path and its text."""
    roles, plugins = load_roles(root), load_plugins(root)
    pages = {root / "roles" / role.name / "README.md": render_role(role) for role in roles}
    pages[root / "docs/variables.md"] = render_variables(roles)
    pages[root / "docs/plugins.md"] = render_plugins(plugins)
    for page in sorted(root.glob("docs/*.md")):
        if SECTION.search(text := page.read_text(encoding="utf-8")):
            pages[page] = fill(text)
    return pages


def stale(root: Path) -> list[Path]:
    """Return the pages that differ from what `generate` would write, or do not exist."""
    return [path for path, text in generate(root).items() if not path.exists() or path.read_text(encoding="utf-8") != text]


def main() -> int:
    """Write the stale pages, or name them."""
    parser = argparse.ArgumentParser(description="Writes the generated pages of the documentation.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when a page is stale")
    check = parser.parse_args().check
    pages = generate(ROOT)
    outdated = stale(ROOT)
    for path in outdated:
        if check:
            print(f"{path.relative_to(ROOT)} is stale; run: make docs-update", file=sys.stderr)
        else:
            path.write_text(pages[path], encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
    return 1 if check and outdated else 0


if __name__ == "__main__":
    sys.exit(main())

"""Files that are written together: what changes, what is shown of it, and what is left alone."""

from __future__ import annotations

import grp
import json
import os
import pwd
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.mlops.mlflow.plugins.modules import host_files

SECRET = "token's\n\"Secret\" \\\n"
ME = {"owner": pwd.getpwuid(os.getuid()).pw_name, "group": grp.getgrgid(os.getgid()).gr_name}


@pytest.fixture(name="run")
def fixture_run(capsys: pytest.CaptureFixture[str]) -> Any:
    """A function that runs the module."""

    def run(*files: dict[str, Any], folders: tuple[Path, ...] = (), check: bool = False) -> dict[str, Any]:
        secrets = {str(each["path"]): each.pop("secret") for each in files if "secret" in each}
        entries = [ME | {"path": str(each.pop("path"))} | each for each in files]
        arguments = {"files": entries, "secrets": secrets, "folders": list(map(str, folders))}
        with patch_module_args(arguments | {"_ansible_check_mode": check, "_ansible_diff": True}), pytest.raises(SystemExit):
            host_files.main()
        return json.loads(capsys.readouterr().out)

    return run


def shows_secret(text: str) -> bool:
    """Whether any line of it is there, however it is written."""
    return any(word in text for word in ("token", "Secret"))


def mode(path: Path) -> int:
    """Its permissions."""
    return path.stat().st_mode & 0o7777


def test_new_files(run: Any, tmp_path: Path) -> None:
    """In a folder that is new too; a second run changes nothing."""
    folder, plain, hidden = tmp_path / "etc", tmp_path / "etc" / "plain", tmp_path / "etc" / "hidden"

    def wanted() -> list[dict[str, Any]]:
        return [
            {"path": folder, "state": "directory", "mode": "0750"},
            {"path": plain, "content": "one\n"},
            {"path": hidden, "secret": SECRET, "mode": "0600"},
        ]

    first = run(*wanted())
    assert first["changed"] and first["changed_paths"] == [str(folder), str(plain), str(hidden)]
    assert (plain.read_text(), hidden.read_text()) == ("one\n", SECRET)
    assert (mode(folder), mode(plain), mode(hidden)) == (0o750, 0o644, 0o600)
    assert "one" in json.dumps(first["diff"]) and not shows_secret(json.dumps(first))
    assert sorted(folder.iterdir()) == [hidden, plain]
    second = run(*wanted())
    assert not second["changed"] and second["diff"] == []


def test_no_secret_is_logged(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ansible writes a line to the host's journal for every module that runs."""
    logged: list[str] = []
    monkeypatch.setattr(host_files.AnsibleModule, "_log_to_syslog", lambda _self, text: logged.append(text))
    monkeypatch.setattr("ansible.module_utils.basic.has_journal", False)
    run({"path": tmp_path / "plain", "content": "one\n"}, {"path": tmp_path / "hidden", "secret": SECRET})
    assert any("plain" in line for line in logged) and not any(shows_secret(line) for line in logged)


def test_folders_above_a_folder(run: Any, tmp_path: Path) -> None:
    """Have its owner and mode, whatever the umask is; a link counts as what it leads to."""
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real").mkdir(0o700)
    before = os.umask(0o077)
    try:
        run({"path": tmp_path / "a" / "b", "state": "directory", "mode": "0751"}, {"path": tmp_path / "link", "state": "directory", "mode": "0750"})
    finally:
        os.umask(before)
    assert [mode(tmp_path / name) for name in ("a", "a/b", "real")] == [0o751, 0o751, 0o750] and (tmp_path / "link").is_symlink()
    assert not run({"path": tmp_path / "link", "state": "directory", "mode": "0750"})["changed"]


def test_another_content_and_mode(run: Any, tmp_path: Path) -> None:
    """Both are changes, and both are shown."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("old\n")
    two.write_text("same\n")
    two.chmod(0o600)
    result = run({"path": one, "content": "new\n"}, {"path": two, "content": "same\n"})
    assert result["changed_paths"] == [str(one), str(two)]
    assert one.read_text() == "new\n" and mode(two) == 0o644
    shown = {(each["after_header"], each["before"], each["after"]) for each in result["diff"]}
    assert {(str(one), "old\n", "new\n"), (str(two), "mode: 0600\n", "mode: 0644\n")} <= shown


def test_check_mode(run: Any, tmp_path: Path) -> None:
    """Says the same and does nothing, in folders that are not there either."""
    old, gone = tmp_path / "old", tmp_path / "gone"
    old.write_text("old\n")
    old.chmod(0o644)
    gone.write_text("gone\n")
    result = run(
        {"path": tmp_path / "etc", "state": "directory"},
        {"path": tmp_path / "etc" / "new", "content": "new\n"},
        {"path": old, "content": "new\n", "mode": "0600"},
        {"path": gone, "state": "absent"},
        check=True,
    )
    assert result["changed_paths"] == [str(tmp_path / "etc"), str(tmp_path / "etc" / "new"), str(old), str(gone)]
    assert old.read_text() == "old\n" and mode(old) == 0o644 and gone.exists() and not (tmp_path / "etc").exists()


def test_what_is_not_to_be_there(run: Any, tmp_path: Path) -> None:
    """A file that is named, one of ours, and what is in a folder of ours; not somebody else's."""
    named, ours, theirs, link, folder = (tmp_path / name for name in ("named", "ours", "theirs", "link", "folder"))
    for path in (named, theirs):
        path.write_text("text\n")
    ours.write_text("# Written by us\n")
    link.symlink_to("/nowhere")
    folder.mkdir()
    (folder / "stray").write_text("stray\n")
    (folder / "folder").mkdir()
    result = run(
        {"path": named, "state": "absent"},
        {"path": ours, "state": "absent", "marker": "# Written by us"},
        {"path": theirs, "state": "absent", "marker": "# Written by us"},
        {"path": link, "state": "absent"},
        {"path": tmp_path / "never", "state": "absent"},
        {"path": folder / "kept", "content": "kept\n"},
        folders=(folder, tmp_path / "none"),
    )
    assert result["changed_paths"] == [str(named), str(ours), str(link), str(folder / "kept"), str(folder / "stray")]
    assert theirs.exists() and {each.name for each in folder.iterdir()} == {"folder", "kept"}


def test_a_content_that_is_wrong(run: Any, tmp_path: Path) -> None:
    """Is not written, after what comes before it; what does not change is not checked."""
    before, wrong = tmp_path / "before", tmp_path / "wrong"
    result = run({"path": before, "content": "text\n"}, {"path": wrong, "content": "wrong\n", "validate": f"grep -q {before} %s"})
    assert result["failed"] and f"{wrong} would be wrong, and was not written" in result["msg"] and result["changed_paths"] == [str(before)]
    assert list(tmp_path.iterdir()) == [before]
    wrong.write_text("wrong\n")
    assert not run({"path": wrong, "content": "wrong\n", "validate": "grep -q right %s"})["changed"]
    assert run({"path": wrong, "content": "right\n", "validate": "grep -q right %s"})["changed_paths"] == [str(wrong)]


def test_nothing_is_left_of_a_file_that_could_not_be_written(run: Any, tmp_path: Path) -> None:
    """It may have a secret in it."""
    result = run({"path": tmp_path / "one", "secret": SECRET, "owner": "nobody-of-that-name"})
    assert result["failed"] and list(tmp_path.iterdir()) == []


def test_a_file_without_content(run: Any, tmp_path: Path) -> None:
    """Is a mistake."""
    assert run({"path": tmp_path / "one"})["msg"] == f"{tmp_path}/one has no content"

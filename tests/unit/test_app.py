"""What the server's application answers directly, and what it leaves to MLflow's own."""

from __future__ import annotations

import asyncio
import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "roles" / "mlflow" / "files" / "app"))
app = importlib.import_module("mlops_app")

PATH = "/api/2.0/mlflow/runs/get"


def rest(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """A WSGI application that says what it was asked."""
    start_response("201 CREATED", [("Content-Type", "text/plain"), ("X-Seen", environ.get("HTTP_X_ASKED", ""))])
    return [f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}?{environ['QUERY_STRING']} ".encode(), environ["wsgi.input"].read()]


async def full(scope: dict[str, Any], _receive: Any, send: Any) -> None:
    """An ASGI application that says that it was asked."""
    await send({"type": "full", "path": scope["path"]})


def ask(scope: dict[str, Any], *messages: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what the dispatcher sends."""
    waiting, sent = list(messages), []

    async def receive() -> dict[str, Any]:
        return waiting.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(app.Dispatcher(full, rest, [PATH])(scope, receive, send))
    return sent


def request(**changes: Any) -> dict[str, Any]:
    """A request in ASGI."""
    return {
        "type": "http",
        "method": "POST",
        "path": PATH,
        "query_string": b"a=b%20c",
        "http_version": "1.1",
        "scheme": "http",
        "server": ("10.0.0.1", 5000),
        "client": ("10.0.0.2", 4711),
        "headers": [(b"host", b"mlflow"), (b"x-asked", b"one"), (b"x-asked", b"two"), (b"content-type", b"application/json"), (b"content-length", b"7")],
    } | changes


def test_a_call_of_the_rest_api() -> None:
    """With its body in one piece."""
    body = ({"type": "http.request", "body": b"one", "more_body": True}, {"type": "http.request", "body": b" two"})
    assert ask(request(), *body) == [
        {"type": "http.response.start", "status": 201, "headers": [(b"content-type", b"text/plain"), (b"x-seen", b"one,two")]},
        {"type": "http.response.body", "body": b"POST /api/2.0/mlflow/runs/get?a=b%20c one two"},
    ]


@pytest.mark.parametrize(
    "changes",
    [{"path": PATH + "/"}, {"path": "/"}, {"method": "OPTIONS"}, {"method": "HEAD"}, {"type": "lifespan"}, {"type": "websocket"}],
)
def test_anything_else(changes: dict[str, Any]) -> None:
    """Goes to MLflow's own application."""
    assert ask(request(**changes))[0]["type"] == "full"


def test_a_client_that_leaves() -> None:
    """Gets no answer, and nothing is done."""
    assert ask(request(), {"type": "http.request", "body": b"half", "more_body": True}, {"type": "http.disconnect"}) == []


def test_an_error() -> None:
    """Is uvicorn's to answer, as ever; what was opened is closed."""

    class Answer:
        closed = False

        def __iter__(self) -> Any:
            raise RuntimeError("no answer")

        def close(self) -> None:
            self.closed = True

    answer = Answer()
    with pytest.raises(RuntimeError, match="no answer"):
        app.answer(lambda _environ, _start: answer, {})
    assert answer.closed


def test_environment() -> None:
    """As PEP 3333 has it."""
    environ = app.environment(request(headers=[(b"host", b"mlflow:443"), (b"transfer-encoding", b"chunked"), (b"cookie", b"k\xfc")], server=None), b"body")
    said = {name: value for name, value in environ.items() if not name.startswith("wsgi.")}
    assert said == {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": PATH,
        "QUERY_STRING": "a=b%20c",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "10.0.0.2",
        "HTTP_HOST": "mlflow:443",
        "HTTP_COOKIE": "kü",
        "CONTENT_LENGTH": "4",
    }


def test_gunicorn_and_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both get MLflow's own application."""
    flask, fastapi = object(), object()
    installed: list[bool] = []
    monkeypatch.setitem(__import__("sys").modules, "mlflow", type("", (), {}))
    monkeypatch.setitem(__import__("sys").modules, "mlflow.server", type("", (), {"app": flask}))
    monkeypatch.setenv("MLOPS_SHORTCUTS", "true")
    for each in (app.mlops_search, app.mlops_logging):
        monkeypatch.setattr(each, "install", lambda: installed.append(True))
    assert app.shortened(flask) is flask
    assert installed == [True, True]
    monkeypatch.setenv("MLOPS_SHORTCUTS", "false")
    assert app.shortened(fastapi) is fastapi
    assert installed == [True, True]

# Written by the role mlops.mlflow.mlflow; edits are overwritten.
"""The application that uvicorn runs: MLflow's own, with a direct way to its REST API.

MLflow's REST API is a Flask application. Since 3.3 it is mounted in a FastAPI application, whose middlewares, routers and bridges to a thread it does
not need: the Flask application checks hosts, origins and users by itself. So calls of the REST API go to it directly, and
everything else (pages, files, traces, artifacts, streams) through FastAPI as before.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import io
import os
import sys
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mlops_logging
import mlops_login
import mlops_search

# Together as many as MLflow has by AnyIO; the pools of connections to the database are made for them. What clients log is done by few at a time: more
# only wait for each other. Whatever else may take long, and keeps no client from logging.
LOGGING_THREADS = 8
OTHER_THREADS = 32
LOGGING = ("/runs/log-batch", "/runs/log-inputs", "/runs/log-metric", "/runs/log-parameter", "/runs/set-tag", "/runs/update")
METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE"}

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def environment(scope: Scope, body: bytes) -> dict[str, Any]:
    """Describe a request as WSGI has it (PEP 3333).

    Args:
        scope: the request in ASGI.
        body: all of it.

    Returns:
        The environment for the WSGI application.
    """
    host, port = scope.get("server") or ("localhost", 80)
    environ = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": scope["path"].encode().decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": host,
        "SERVER_PORT": str(port or 80),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "REMOTE_ADDR": (scope.get("client") or ("127.0.0.1",))[0],
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").upper().replace("-", "_"), raw_value.decode("latin-1")
        if name != "CONTENT_TYPE":
            name = f"HTTP_{name}"
        environ[name] = f"{environ[name]},{value}" if name in environ else value
    # The body is here in one piece, however it came.
    environ.pop("HTTP_CONTENT_LENGTH", None)
    environ.pop("HTTP_TRANSFER_ENCODING", None)
    environ["CONTENT_LENGTH"] = str(len(body))
    return environ


def answer(rest: Callable[..., Iterable[bytes]], environ: dict[str, Any]) -> list[Message]:
    """Have a WSGI application answer.

    Args:
        rest: the application.
        environ: the request.

    Returns:
        The answer as messages of ASGI: its start, and the whole body.
    """
    start: Message = {"type": "http.response.start"}

    def start_response(status: str, headers: list[tuple[str, str]], _error: Any = None) -> None:
        start["status"] = int(status.split(" ", 1)[0])
        start["headers"] = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]

    parts = rest(environ, start_response)
    try:
        return [start, {"type": "http.response.body", "body": b"".join(parts)}]
    finally:
        close = getattr(parts, "close", None)
        if close:
            close()


class Dispatcher:
    """An ASGI application that has some paths answered by a WSGI application, and all others by an ASGI application."""

    def __init__(self, full: Callable[..., Awaitable[None]], rest: Callable[..., Iterable[bytes]], paths: Iterable[str]) -> None:
        """Remember them.

        Args:
            full: the ASGI application.
            rest: the WSGI application.
            paths: those of the WSGI application, whole.
        """
        self.full, self.rest, self.paths = full, rest, frozenset(paths)
        self.logging, self.other = ThreadPoolExecutor(LOGGING_THREADS, "logging"), ThreadPoolExecutor(OTHER_THREADS, "rest")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http" or scope["path"] not in self.paths or scope["method"] not in METHODS:
            await self.full(scope, receive, send)
            return
        parts = []
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        pool = self.logging if scope["path"].endswith(LOGGING) else self.other
        # What a request leaves in context variables is not there for the next one of the thread.
        run = contextvars.copy_context().run
        for each in await asyncio.get_running_loop().run_in_executor(pool, run, answer, self.rest, environment(scope, b"".join(parts))):
            await send(each)


def direct_paths(rest: Any, full: Any) -> set[str]:
    """Find the calls of the REST API that FastAPI would only hand on.

    Args:
        rest: MLflow's Flask application.
        full: MLflow's FastAPI application, in which it is mounted.

    Returns:
        Whole paths: those with a variable part may be files, of any size.
    """
    from starlette.routing import Match, Mount

    native = [route for route in full.routes if not isinstance(route, Mount)]

    def is_native(path: str, method: str) -> bool:
        scope = {"type": "http", "path": path, "root_path": "", "method": method, "headers": []}
        return any(route.matches(dict(scope))[0] is not Match.NONE for route in native)

    prefix = os.environ.get("_MLFLOW_STATIC_PREFIX", "").rstrip("/")
    calls = {rule.rule.removeprefix(prefix) for rule in rest.url_map.iter_rules() if not rule.arguments}
    api = {call for call in calls if call.startswith("/api/")}
    # What only pages ask for may be a file too.
    twins = {call.replace("/api/", "/ajax-api/", 1) for call in api} & calls
    return {prefix + call for call in api | twins if not any(is_native(prefix + call, method) for method in METHODS)}


def shortcuts() -> bool:
    """Tell whether they are wanted."""
    return os.environ.get("MLOPS_SHORTCUTS") == "true"


def shortened(full: Any) -> Any:
    """Shorten searches and logging, and put the direct way before MLflow's application, unless that is Flask's anyway (MLflow before 3.3); nothing of it if
    nobody wants it."""
    from mlflow.server import app as rest

    if not shortcuts():
        return full
    mlops_search.install()
    mlops_logging.install()
    if full is rest:
        return full
    made = Dispatcher(full, rest, direct_paths(rest, full))
    # What is there now stays; the collector need not look at it again and again.
    gc.collect()
    gc.freeze()
    return made


def with_users() -> Any:
    """Make the application with MLflow's basic-auth."""
    from mlflow.server import auth

    if shortcuts():
        mlops_login.install(auth)
    return shortened(auth.create_app())


def without_users() -> Any:
    """Make the application that lets everybody in."""
    from mlflow.server import app as rest
    from mlflow.server import fastapi_app

    # Somebody may have chosen gunicorn, in mlflow_environment.
    return shortened(fastapi_app.app if os.environ.get("_MLFLOW_SGI_NAME") == "uvicorn" else rest)

"""`mmrec dashboard`: optuna-dashboard on a run's ledger, for this machine's eyes, and only to read.

optuna-dashboard has no read-only mode: whoever opens its page may delete studies and close trials.
Here every request that would change something is refused, and the database is told to refuse it
too. It shows all studies of the database, which may be a team's.
"""

import json
import sys
from collections.abc import Callable, Iterable
from http import HTTPStatus
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from optuna.storages import RDBStorage
from sqlalchemy import Engine, event

from mmrec.study.database import Refused

LOOPBACK = "127.0.0.1"

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def serve(storage: RDBStorage, port: int) -> None:
    """Show a ledger on this machine, until Ctrl-C.

    Args:
        storage: a ledger's; it can only be read from here on.
        port: 0 takes any that is free.

    Raises:
        Refused: optuna-dashboard is not installed, or the port is taken.
    """
    try:
        import optuna_dashboard  # an extra
    except ImportError as error:
        raise Refused(
            "mmrec dashboard needs optuna-dashboard: pip install 'mmrec[dashboard]'"
        ) from error
    only_read(storage.engine)
    app = guarded(optuna_dashboard.wsgi(storage))
    try:
        server = make_server(LOOPBACK, port, app, server_class=_Server, handler_class=_Quiet)
    except OSError as error:
        raise Refused(
            f"port {port} of {LOOPBACK}: {error.strerror}; give another --port"
        ) from error
    with server:
        print(
            f"http://{LOOPBACK}:{server.server_port}/ shows the ledger, and changes nothing in it;"
            " Ctrl-C ends",
            file=sys.stderr,
            flush=True,
        )
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print(file=sys.stderr)


def only_read(engine: Engine) -> None:
    """Let the database itself refuse to write, on every connection from here on."""
    words = {
        "sqlite": "PRAGMA query_only=ON",
        "postgresql": "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    }[engine.dialect.name]

    def tell(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute(words)
        cursor.close()
        connection.commit()

    event.listen(engine, "connect", tell)
    engine.dispose()  # those that were open may still write


def guarded(app: App) -> App:
    """A web application that may only be read, and only under a name of this machine's.

    Without the second, a page of the web could reach it under a name of its own that it lets point
    to 127.0.0.1.
    """

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        host = environ.get("HTTP_HOST", "").rpartition(":")[0]
        if host not in (LOOPBACK, "localhost"):
            return _refusal(start, HTTPStatus.FORBIDDEN, "this machine only")
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _refusal(start, HTTPStatus.METHOD_NOT_ALLOWED, "the ledger is only to be read")
        return app(environ, start)

    return answer


def _refusal(start: Callable[..., Any], status: HTTPStatus, why: str) -> Iterable[bytes]:
    start(f"{status.value} {status.phrase}", [("Content-Type", "application/json")])
    return [json.dumps({"reason": why}).encode()]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """No line a request."""

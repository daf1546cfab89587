"""The page of a sweep that runs, for browsers on this machine. Knows HTTP; what there is to show, it is told.

Nobody gets an answer who does not know the page's address, which has a random token in it, and nothing is served but
the page. The Host of a request must be this machine: the page of another site could otherwise ask by a name of its own
that leads here (DNS rebinding).
"""

import base64
import hashlib
import html
import secrets
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from cifarsweep.report import page

LOCAL = "127.0.0.1"
BEAT = 15.0
"""Seconds after which a silent connection is written to, so that one whose browser is gone ends."""
SHARE = 0.01
"""Of one core, at most, goes to making the page again."""
LEAST_SECONDS = 10.0
"""Between two versions of the page, which readers load anew."""
FAREWELL = 5.0
"""Seconds that readers have to load the final page."""
STYLE = """#now { max-width: var(--width); margin: 0 auto; padding: 0 1.25rem; }
#now .scroll { max-height: 40vh; overflow-y: auto; }
header .notice, .files { display: none; }
a[href]:not([href^='#']) { pointer-events: none; color: inherit; text-decoration: none; }"""
"""Of files that a link leads to, none is served; what still runs is said in #now."""
NO_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>No page yet</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src ">
</head><body><nav></nav><main><p>{}</p></main></body></html>"""


@dataclass(frozen=True)
class Now:
    """What stands above the page: a sentence for the sweep, and a table of its runs."""

    text: str
    header: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    """Columns of texts."""
    rows: tuple[tuple[str, ...], ...] = ()
    num_left_out: int = 0


class LivePage:
    """Served from entering the block to leaving it, by threads of this process."""

    def __init__(self, render: Callable[[], str], port: int = 0) -> None:
        """`render` makes the page, once somebody asks for it after a change. ValueError where the port is taken."""
        self._render, self._rendering, self._rendered = render, threading.Lock(), (-1, "")
        self.token, self.told = secrets.token_urlsafe(16), threading.Condition()
        self.version, self.is_over, self._next = 0, False, 0.0
        self._content: Hashable = None
        self._now, self.fragment = Now(""), ""
        self.readers = self.num_loaded = 0
        self._templates, self._script = page.environment(Path()), _script()
        try:
            self._server = _Server((LOCAL, port), partial(_Handler, self))
        except OSError as error:
            raise ValueError(f"--port {port}: {error.strerror}, expected one that is free") from error
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def address(self) -> str:
        return f"http://{LOCAL}:{self.port}/{self.token}/"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def tell(self, now: Now, content: Hashable) -> None:
        """Shows it. Where `content` is another one, the page has changed, and is loaded anew once that is due."""
        is_new = content != self._content and time.monotonic() >= self._next
        if now == self._now and not is_new:
            return
        with self.told:
            if is_new:
                self.version, self._content = self.version + 1, content
                self._next = time.monotonic() + LEAST_SECONDS
            self._now = now
            self._show()

    def end(self, final: str, now: Now) -> None:
        """Shows the final page, and waits until those who read the page have loaded it."""
        with self._rendering, self.told:
            self.version, self.is_over, self._now = self.version + 1, True, now
            self._rendered, self.num_loaded, readers = (self.version, final), 0, self.readers
            self._show()
        with self.told:
            self.told.wait_for(lambda: self.num_loaded >= readers, FAREWELL)

    def _show(self) -> None:
        self.fragment = self._templates.get_template("live.html").render(
            now=self._now, version=self.version, is_over=self.is_over
        )
        self.told.notify_all()

    def document(self) -> str:
        """The page with what is told above it. It does not know that it is live, so both are put together here."""
        with self._rendering:
            version = self.version
            if self._rendered[0] != version:
                began = time.thread_time()
                self._rendered = version, self._made()
                self._next = time.monotonic() + max(LEAST_SECONDS, (time.thread_time() - began) / SHARE)
            whole = self._rendered[1]
        digest = base64.b64encode(hashlib.sha256(self._script.encode()).digest()).decode()
        for mark, text in (
            ("default-src 'none';", "default-src 'none'; connect-src 'self';"),
            ("script-src ", f"script-src 'sha256-{digest}' "),
            ("</head>", f"<style>{STYLE}</style>\n<script>{self._script}</script>\n</head>"),
            ("<nav", f'<section id="now" aria-label="Now" data-page="{version}">\n{self.fragment}</section>\n<nav'),
        ):
            whole = whole.replace(mark, text, 1)
        return whole

    def _made(self) -> str:
        try:
            return self._render()
        except (OSError, ValueError) as error:  # such as no run that can be read yet
            return NO_PAGE.format(html.escape(str(error)))


def _script() -> str:
    return (page.TEMPLATES / "live.js").read_text(encoding="utf-8").strip()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away is no error."""


class _Handler(BaseHTTPRequestHandler):
    timeout = 30  # seconds in which a request must have come
    error_message_format = "%(message)s\n"
    error_content_type = "text/plain; charset=utf-8"

    def __init__(self, live: LivePage, *arguments: Any) -> None:
        self._live = live
        super().__init__(*arguments)

    def parse_request(self) -> bool:
        """Whether the request is one of this page's: all others end here, whatever their method."""
        if not super().parse_request():
            return False
        hosts = {f"{name}:{self._live.port}" for name in (LOCAL, "localhost")}
        if self.headers.get_all("Host") is None or not {*self.headers.get_all("Host", [])} <= hosts:
            self.send_error(HTTPStatus.FORBIDDEN, "for this machine only")
            return False
        first, _, self._asked = self.path.removeprefix("/").partition("/")
        if not secrets.compare_digest(first.encode(), self._live.token.encode()):
            self.send_error(HTTPStatus.NOT_FOUND, "nothing here")
            return False
        return True

    def do_GET(self) -> None:
        if self._asked == "events":
            self._send_events()
        elif self._asked == "":
            content = self._live.document().encode("utf-8", "backslashreplace")
            self._begin("text/html; charset=utf-8", len(content))
            self.wfile.write(content)
            with self._live.told:
                self._live.num_loaded += 1
                self._live.told.notify_all()
        else:
            self.send_error(HTTPStatus.NOT_FOUND, "only the page is served, none of its files")

    def _begin(self, kind: str, length: int | None = None) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", "frame-ancestors 'none'")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()

    def _send_events(self) -> None:
        """What is told, each time it changes, as server-sent events."""
        live, shown = self._live, ""
        self._begin("text/event-stream; charset=utf-8")
        with live.told:
            live.readers += 1
        try:
            while True:
                with live.told:
                    if live.fragment == shown:
                        live.told.wait(BEAT)
                    is_new, shown = live.fragment != shown, live.fragment
                lines = "".join(f"data: {line}\n" for line in shown.splitlines()) if is_new else ": still here\n"
                self.wfile.write(f"{lines}\n".encode("utf-8", "backslashreplace"))
        finally:
            with live.told:
                live.readers -= 1

    def version_string(self) -> str:
        return "cifarsweep"

    def log_message(self, format: str, *arguments: Any) -> None:
        """Says nothing: the terminal is the user's."""

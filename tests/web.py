"""A web server of a test's own on a free port of 127.0.0.1, over real sockets: what it answers is the test's to say."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class WebRequest(BaseHTTPRequestHandler):
    """A request; it goes into no log."""

    def log_message(self, *_):
        """Says nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = False

    def handle_error(self, *_):
        """Clients go when they like."""


@contextmanager
def web_server(handler, *, tls=None):
    """Serves with a class of `WebRequest`. The server has its `url`, and `over` for who waits: it is set at the end.

    tls  an SSLContext, for ``https:``.
    """
    with _Server(("127.0.0.1", 0), handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        server.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
        server.over = threading.Event()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.over.set()
            server.shutdown()
            thread.join()

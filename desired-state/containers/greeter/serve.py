"""Says hello, and counts whom it said it to: a program that needs a port, and a file that it can write."""

import http.server
import os
import pathlib

COUNT = pathlib.Path(os.environ["HOME"]) / "count"


class Greeter(http.server.BaseHTTPRequestHandler):
    """One greeting for each request."""

    def do_GET(self) -> None:
        """Greet."""
        number = int(COUNT.read_text() if COUNT.exists() else 0) + 1
        COUNT.write_text(str(number))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"Hello, number {number}, from user {os.getuid()}.\n".encode())


http.server.HTTPServer(("", 8080), Greeter).serve_forever()

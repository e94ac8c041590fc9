"""A stand-in for an identity provider with oauth2-proxy before it: it knows people by a token, or by the cookie that its sign-in page gives.

usage: identity_provider.py PORT
"""

from __future__ import annotations

import html
import http.cookies
import http.server
import sys
from urllib.parse import parse_qs, urlsplit

PEOPLE = {"tokenAlice7": "alice@example.org", "tokenBoss7": "boss@example.org"}


class Handler(http.server.BaseHTTPRequestHandler):
    """The paths of oauth2-proxy that a gateway uses."""

    def do_GET(self) -> None:
        """Say who somebody is, or let him sign in."""
        url = urlsplit(self.path)
        if url.path == "/oauth2/auth":
            person = PEOPLE.get(self.token())
            self.reply(202 if person else 401, {"X-Auth-Request-Email": person} if person else {})
        elif url.path == "/oauth2/sign_in":
            question = parse_qs(url.query)
            token = question.get("token", [""])[0]
            if token in PEOPLE:
                self.reply(302, {"Set-Cookie": f"session={token}; Path=/; Secure; HttpOnly", "Location": question.get("rd", ["/"])[0]})
            else:
                back = html.escape(self.headers.get("X-Auth-Request-Redirect", "/"))
                self.reply(403, {"Content-Type": "text/html"}, f"<h1>Sign in</h1><input name='rd' value='{back}'>".encode())
        else:
            self.reply(404, {})

    def token(self) -> str:
        """Return the token of the request, from wherever it is."""
        scheme, dummy, token = self.headers.get("Authorization", "").partition(" ")
        cookie = http.cookies.SimpleCookie(self.headers.get("Cookie", "")).get("session")
        return token if scheme == "Bearer" else cookie.value if cookie else ""

    def reply(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        """Send an answer."""
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()

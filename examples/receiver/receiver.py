"""A receiver that verifies, with the published library: pip install standardwebhooks

    SECRET=whsec_… python3 receiver.py        listens on http://127.0.0.1:8080
"""

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook, WebhookVerificationError

webhook = Webhook(os.environ["SECRET"])
seen = set()  # a real receiver keeps the ids of the last days in its database


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        # Verify the bytes as they came: parsed and written anew they would be other bytes.
        body = self.rfile.read(int(self.headers["content-length"]))
        try:
            event = webhook.verify(body, {k.lower(): v for k, v in self.headers.items()})
        except (WebhookVerificationError, ValueError):  # ValueError: a header that is no base64
            return self.answer(401)
        # At least once: the same id may come again, and is then acknowledged and ignored.
        if self.headers["webhook-id"] not in seen:
            seen.add(self.headers["webhook-id"])
            print(event["type"], event["data"], flush=True)
        self.answer(204)

    def answer(self, status):
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    address = (os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "8080")))
    ThreadingHTTPServer(address, Receiver).serve_forever()

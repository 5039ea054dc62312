"""A webhook receiver that verifies signatures with the `standardwebhooks` library.

    pip install standardwebhooks
    WEBHOOK_SECRET=whsec_... python receiver.py

It listens on port 8080 and prints each event once, however often it is sent.
"""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook, WebhookVerificationError

webhook = Webhook(os.environ["WEBHOOK_SECRET"])

# In earnest this is a table with a unique key: deliveries come at least once.
seen = set()


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        # The exact bytes are what is signed: verify first, parse afterwards.
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        try:
            webhook.verify(body, dict(self.headers.items()))
        except WebhookVerificationError as error:
            print("refused:", error)
            self.send_response(401)
            self.end_headers()
            return
        event_id = self.headers["webhook-id"]
        if event_id not in seen:
            seen.add(event_id)
            print(event_id, json.dumps(json.loads(body)))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    ThreadingHTTPServer(("", 8080), Receiver).serve_forever()

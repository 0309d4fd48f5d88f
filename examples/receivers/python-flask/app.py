"""A receiver for Pipelet's webhooks, in Flask."""

import hmac
import json
import logging
import os
import queue
import sys
import threading

from flask import Flask, request
from standardwebhooks.webhooks import Webhook, WebhookVerificationError
from werkzeug.serving import WSGIRequestHandler, make_server

secret = os.environ["WEBHOOK_SECRET"]
webhook = Webhook(os.environ["SIGNING_SECRET"])

# In production, use a database table with a unique key on the id instead, and write the work in
# the same transaction: then neither is lost when this process ends.
seen = set()
work = queue.Queue(maxsize=1000)
lock = threading.Lock()

app = Flask(__name__)


@app.post("/")
@app.post("/<path:path>")
def receive(path=""):
    shown = request.headers.get("x-webhook-secret", "")
    if not hmac.compare_digest(shown.encode(), secret.encode()):
        return "", 401
    body = request.get_data()
    try:
        webhook.verify(body, {name.lower(): value for name, value in request.headers.items()})
    except WebhookVerificationError:
        return "", 401
    event_id = request.headers["webhook-id"]
    with lock:
        if event_id not in seen:
            try:
                work.put_nowait(json.loads(body))
            except queue.Full:
                return "", 503  # Pipelet sends the event again later
            seen.add(event_id)
    return "", 204


def handle_events():
    while True:
        event = work.get()
        print(event["event"], event["station_id"], flush=True)


if __name__ == "__main__":
    threading.Thread(target=handle_events, daemon=True).start()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    WSGIRequestHandler.protocol_version = "HTTP/1.1"  # keeps connections open
    host, port = os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "3001"))
    server = make_server(host, port, app, threaded=True)
    print("listening on port", server.server_port, file=sys.stderr, flush=True)
    server.serve_forever()

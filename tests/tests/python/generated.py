"""A webhook's life, by a client that openapi-python-client has generated.

Takes the daemon's URL, a key, and the URL of a receiver that answers with 200; there is one failed
delivery.
"""

import sys

from pipelet_client import AuthenticatedClient
from pipelet_client.api.failed_deliveries import list_failed_deliveries, replay_failed_delivery
from pipelet_client.api.webhooks import create_webhook, delete_webhook, test_webhook, update_webhook
from pipelet_client.models import EventSelector, NewWebhook, Problem, TestRequest, WebhookChange

server, key, receiver = sys.argv[1:]
client = AuthenticatedClient(
    base_url=server, token=key, prefix="", auth_header_name="X-API-Key"
)

refused = create_webhook.sync(client=client, body=NewWebhook(name="", url="x", events=[]))
assert isinstance(refused, Problem), refused
assert {fault.pointer for fault in refused.errors} == {"/name", "/url", "/events"}, refused

events = [EventSelector.HEARTBEAT]
new = NewWebhook(name="generated", url=receiver, events=events, generate_signing_secret=True)
made = create_webhook.sync(client=client, body=new)
assert made.signing_secret.startswith("whsec_"), made
assert (made.name, made.events, made.stats.received) == ("generated", events, 0), made

tested = test_webhook.sync(made.id, client=client, body=TestRequest())
assert (tested.ok, tested.status_code) == (True, 200), tested

changed = update_webhook.sync(made.id, client=client, body=WebhookChange(name="renamed"))
assert (changed.name, changed.url, changed.has_signing_secret) == ("renamed", receiver, True)
assert changed.created_at == made.created_at, changed

[failed] = list_failed_deliveries.sync(client=client).data
assert failed.payload.additional_properties == {}, failed
assert [attempt.status_code for attempt in failed.attempts] == [500], failed
replayed = replay_failed_delivery.sync(failed.id, client=client)
assert (replayed.replayed, replayed.skipped) == (1, 0), replayed

deleted = delete_webhook.sync_detailed(made.id, client=client)
assert deleted.status_code == 204, deleted

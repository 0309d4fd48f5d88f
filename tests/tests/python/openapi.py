"""Leads the webhooks that openapi.rs makes up to nobody, and lets no two requests share a key.

Some of the names may exist, and would be posted to: `.invalid` never does (RFC 2606). The same
`Idempotency-Key` for another request is refused, as it should be.
"""

import itertools
import re
from urllib.parse import urlsplit

import schemathesis


numbers = itertools.count()


@schemathesis.hook
def before_call(context, case, kwargs):
    headers = case.headers or {}
    key = headers.get("Idempotency-Key")
    if isinstance(key, str) and re.fullmatch(r"[!#-~]{1,200}", key):
        headers["Idempotency-Key"] = f"{key}-{next(numbers)}"
    body = case.body
    if not isinstance(body, dict) or not isinstance(body.get("url"), str):
        return
    try:
        host = urlsplit(body["url"]).hostname
    except ValueError:
        return
    if host:
        body["url"] = body["url"].replace(host, "receiver.invalid", 1)

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


@schemathesis.check
def problems_have_the_codes_that_are_described(context, response, case):
    raw = case.operation.schema.raw_schema
    described = raw["paths"][case.operation.path][case.operation.method.lower()]["responses"]
    name = described.get(str(response.status_code), {}).get("$ref", "").rpartition("/")[2]
    codes = raw["components"]["responses"].get(name, {}).get("x-codes")
    if codes is not None:
        code = response.json()["code"]
        assert code in codes, f"{code} is none of {codes}"

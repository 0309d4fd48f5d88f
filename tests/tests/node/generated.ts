// A webhook's life, by openapi-fetch with the types that openapi-typescript has generated.
//
// Takes the daemon's URL, a key, and the URL of a receiver that answers with 200; there is one failed
// delivery.

import assert from "node:assert/strict";
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

const [server, key, receiver] = process.argv.slice(2);
const client = createClient<paths>({ baseUrl: server, headers: { "X-API-Key": key } });

function data<T>(answer: { data?: T; error?: unknown }): T {
  assert.ok(answer.data !== undefined, JSON.stringify(answer.error));
  return answer.data;
}

const refused = await client.POST("/api/v1/webhooks", { body: { name: "", url: "x", events: [] } });
const problem: components["schemas"]["Problem"] | undefined = refused.error;
assert.deepEqual(problem?.errors?.map((fault) => fault.pointer).sort(), [
  "/events",
  "/name",
  "/url",
]);

const made = data(
  await client.POST("/api/v1/webhooks", {
    body: {
      name: "generated",
      url: receiver,
      events: ["Heartbeat"],
      generate_signing_secret: true,
    },
  }),
);
assert.match(made.signing_secret ?? "", /^whsec_/);
assert.deepEqual([made.events, made.stats.received], [["Heartbeat"], 0]);
const of = { params: { path: { id: made.id } } };

const tested = data(await client.POST("/api/v1/webhooks/{id}/test", of));
assert.deepEqual([tested.ok, tested.status_code], [true, 200]);

// What is not to change is not to be said.
const changed = data(await client.PUT("/api/v1/webhooks/{id}", { ...of, body: { name: "renamed" } }));
assert.deepEqual([changed.name, changed.url, changed.has_signing_secret], ["renamed", receiver, true]);

const { data: dead } = data(await client.GET("/api/v1/failed-deliveries"));
assert.equal(dead.length, 1);
const [failed] = dead;
assert.deepEqual([failed.payload, failed.attempts.map((one) => one.status_code)], [{}, [500]]);
const replayed = data(
  await client.POST("/api/v1/failed-deliveries/{id}/replay", { params: { path: { id: failed.id } } }),
);
assert.deepEqual(replayed, { replayed: 1, skipped: 0 });

const deleted = await client.DELETE("/api/v1/webhooks/{id}", of);
assert.equal(deleted.response.status, 204);

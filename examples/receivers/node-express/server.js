// A receiver for Pipelet's webhooks, in Express.
import { createHash, timingSafeEqual } from "node:crypto";
import express from "express";
import { Webhook } from "standardwebhooks";

const secret = process.env.WEBHOOK_SECRET;
if (!secret) throw new Error("WEBHOOK_SECRET is not set");
const webhook = new Webhook(process.env.SIGNING_SECRET);

// In production, use a database table with a unique key on the id instead, and write the work in
// the same transaction: then neither is lost when this process ends.
const seen = new Set();
const work = [];

const app = express();
// The signature is over the bytes, so the body must not be parsed before it is verified.
app.use(express.raw({ type: "application/json", limit: "2mb" }));

app.post("/{*path}", (request, response) => {
  if (!equal(request.get("x-webhook-secret") ?? "", secret)) {
    return response.sendStatus(401);
  }
  const body = request.body.toString();
  try {
    webhook.verify(body, request.headers);
  } catch {
    return response.sendStatus(401);
  }
  const id = request.get("webhook-id");
  if (!seen.has(id)) {
    if (work.length >= 1000) return response.sendStatus(503); // Pipelet sends the event again later
    seen.add(id);
    work.push(JSON.parse(body));
    setImmediate(handleEvent);
  }
  response.sendStatus(204);
});

function equal(left, right) {
  const digest = (text) => createHash("sha256").update(text).digest();
  return timingSafeEqual(digest(left), digest(right));
}

function handleEvent() {
  const { event, station_id } = work.shift();
  console.log(event, station_id);
}

const server = app.listen(process.env.PORT ?? 3001, process.env.HOST ?? "127.0.0.1", (error) => {
  if (error) throw error;
  console.error("listening on port", server.address().port);
});

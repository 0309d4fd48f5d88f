// A whole charging session of npm's `ocpp-rpc` in strict mode, and what the security extension
// adds to it.
//
// The library holds every answer against the official OCPP 1.6 schemas; a violation or a
// CALLERROR ends this script with an exit status of 1. It prints the transaction's id.
//
// Usage: node station.js WEBSOCKET_URL

import assert from "node:assert/strict";
import process from "node:process";

import { RPCClient } from "ocpp-rpc";

const [url] = process.argv.slice(2);
const slash = url.lastIndexOf("/");
const station = new RPCClient({
  endpoint: url.slice(0, slash),
  identity: url.slice(slash + 1),
  protocols: ["ocpp1.6"],
  strictMode: true,
  reconnect: false,
});

async function session() {
  const say = (action, payload) => station.call(action, payload);
  const status = (connectorStatus) =>
    say("StatusNotification", {
      connectorId: 1,
      errorCode: "NoError",
      status: connectorStatus,
      timestamp: "2026-04-14T12:34:50Z",
    });

  const boot = await say("BootNotification", {
    chargePointVendor: "Acme",
    chargePointModel: "Wallbox",
    chargePointSerialNumber: "SN-0001",
    firmwareVersion: "1.2.3",
  });
  assert.equal(boot.status, "Accepted");
  assert.ok(boot.interval > 0);
  await say("Heartbeat", {});
  const authorized = await say("Authorize", { idTag: "RFID_12345678" });
  assert.equal(authorized.idTagInfo.status, "Accepted");
  await status("Preparing");
  const { transactionId, idTagInfo } = await say("StartTransaction", {
    connectorId: 1,
    idTag: "RFID_12345678",
    meterStart: 12345,
    timestamp: "2026-04-14T12:34:56Z",
  });
  assert.equal(idTagInfo.status, "Accepted");
  await status("Charging");
  for (const minute of [0, 1, 2]) {
    await say("MeterValues", {
      connectorId: 1,
      transactionId,
      meterValue: [
        {
          timestamp: `2026-04-14T12:4${minute}:00Z`,
          sampledValue: [{ value: String(12400 + 100 * minute), unit: "Wh" }],
        },
      ],
    });
  }
  const stopped = await say("StopTransaction", {
    transactionId,
    meterStop: 12600,
    timestamp: "2026-04-14T13:00:00Z",
    idTag: "RFID_12345678",
    reason: "Local",
  });
  assert.equal(stopped.idTagInfo.status, "Accepted");
  const transferred = await say("DataTransfer", { vendorId: "acme", messageId: "m", data: "d" });
  assert.equal(transferred.status, "Accepted");
  await say("DiagnosticsStatusNotification", { status: "Uploaded" });
  await say("FirmwareStatusNotification", { status: "Installed" });

  await say("SecurityEventNotification", {
    type: "FirmwareUpdated",
    timestamp: "2026-04-14T13:10:00Z",
  });
  await say("LogStatusNotification", { status: "Uploaded", requestId: 1 });
  await say("SignedFirmwareStatusNotification", { status: "Installed", requestId: 2 });
  // Nobody here signs anything, but the request gets its answer.
  const signed = await say("SignCertificate", { csr: "a certificate signing request" });
  assert.equal(signed.status, "Rejected");
  return transactionId;
}

await station.connect();
assert.equal(station.protocol, "ocpp1.6");
process.stdout.write(`${await session()}\n`);
await station.close();

// A station on npm's `ocpp-rpc` in strict mode that answers whatever the central system asks.
//
// The library holds every request, and every answer made here, against the official OCPP 1.6
// schemas: what violates them is answered with a CALLERROR. It runs until it is ended.
//
// Usage: node answering.js WEBSOCKET_URL

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

// What is not simply accepted.
const answers = {
  GetConfiguration: {
    configurationKey: [{ key: "A", readonly: true, value: "1" }],
    unknownKey: ["B"],
  },
  GetDiagnostics: { fileName: "log.txt" },
  GetInstalledCertificateIds: { status: "NotFound" },
  GetLocalListVersion: { listVersion: 3 },
  UnlockConnector: { status: "Unlocked" },
  UpdateFirmware: {},
};

station.handle(({ method }) => answers[method] ?? { status: "Accepted" });
await station.connect();

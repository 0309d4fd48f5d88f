// A gateway as one writes it with ocpp-rpc: strict validation, and a POST for each event before
// its station has the answer. Nothing is persisted: what is in flight is lost with the process,
// and a POST that fails is a CALLERROR. Usage: node gateway.js URL

const { createServer } = require('node:http');
const { RPCServer } = require('ocpp-rpc');
const { Pool } = require('undici');

const target = new URL(process.argv[2]);
// Keep-alive, as many connections as pipeletd uses.
const receiver = new Pool(target.origin, { connections: 64 });

const answers = {
  BootNotification: () => ({
    status: 'Accepted',
    currentTime: new Date().toISOString(),
    interval: 300,
  }),
  Heartbeat: () => ({ currentTime: new Date().toISOString() }),
  MeterValues: () => ({}),
  StatusNotification: () => ({}),
};

async function tell(event, station, payload) {
  const { statusCode, body } = await receiver.request({
    method: 'POST',
    path: target.pathname,
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      event,
      station_id: station,
      timestamp: new Date().toISOString(),
      payload,
    }),
  });
  await body.dump();
  if (statusCode >= 300) throw new Error(`the receiver answered ${statusCode}`);
}

const server = new RPCServer({ protocols: ['ocpp1.6'], strictMode: true });
server.auth((accept) => accept());
server.on('client', (client) => {
  for (const [action, answer] of Object.entries(answers)) {
    client.handle(action, async ({ params }) => {
      await tell(action, client.identity, params);
      return answer();
    });
  }
});

const http = createServer();
http.on('upgrade', server.handleUpgrade);
http.listen(0, '127.0.0.1', () => console.log(`listening 127.0.0.1:${http.address().port}`));

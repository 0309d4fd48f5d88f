"""A gateway as one writes it with PyPI's ocpp: schemas are validated, and each event is POSTed
before its station has the answer. Nothing is persisted: what is in flight is lost with the
process, and a POST that fails is a CALLERROR. Usage: gateway.py URL"""

import asyncio
import sys
from datetime import datetime, timezone

import aiohttp
import websockets
from ocpp.routing import on
from ocpp.v16 import ChargePoint, call_result


def now():
    return datetime.now(timezone.utc).isoformat()


class Station(ChargePoint):
    def __init__(self, name, connection, http):
        super().__init__(name, connection)
        self.http = http

    async def tell(self, event, payload):
        body = {"event": event, "station_id": self.id, "timestamp": now(), "payload": payload}
        async with self.http.post(sys.argv[1], json=body) as answer:
            answer.raise_for_status()

    @on("BootNotification")
    async def on_boot(self, **payload):
        await self.tell("BootNotification", payload)
        return call_result.BootNotification(current_time=now(), interval=300, status="Accepted")

    @on("Heartbeat")
    async def on_heartbeat(self):
        await self.tell("Heartbeat", {})
        return call_result.Heartbeat(current_time=now())

    @on("MeterValues")
    async def on_meter_values(self, **payload):
        await self.tell("MeterValues", payload)
        return call_result.MeterValues()

    @on("StatusNotification")
    async def on_status(self, **payload):
        await self.tell("StatusNotification", payload)
        return call_result.StatusNotification()


async def main():
    # Keep-alive, as many connections as pipeletd uses.
    connector = aiohttp.TCPConnector(limit=64)
    async with aiohttp.ClientSession(connector=connector) as http:

        async def serve(connection):
            name = connection.request.path.rsplit("/", 1)[-1]
            try:
                await Station(name, connection, http).start()
            except websockets.ConnectionClosed:
                pass

        # Deflate is off for every gateway here: the stations don't offer it.
        server = await websockets.serve(serve, "127.0.0.1", 0, subprotocols=["ocpp1.6"])
        host, port = next(iter(server.sockets)).getsockname()
        print(f"listening {host}:{port}", flush=True)
        await server.wait_closed()


asyncio.run(main())

"""A mobilityhouse `ocpp` charge point that answers whatever the central system asks.

The library checks every request against the official OCPP 1.6 schemas, and answers one that
violates them with a CALLERROR; it checks the answers that are made here as well. It runs until
it is ended.

Usage: answering.py WEBSOCKET_URL
"""

import asyncio
import sys

import websockets
from ocpp.routing import on
from ocpp.v16 import ChargePoint, call_result

ACCEPTED = {"status": "Accepted"}

# What each action is answered with, in the fields of the library.
ANSWERS = {
    "CancelReservation": ACCEPTED,
    "CertificateSigned": ACCEPTED,
    "ChangeAvailability": ACCEPTED,
    "ChangeConfiguration": ACCEPTED,
    "ClearCache": ACCEPTED,
    "ClearChargingProfile": ACCEPTED,
    "DataTransfer": ACCEPTED,
    "DeleteCertificate": ACCEPTED,
    "ExtendedTriggerMessage": ACCEPTED,
    "GetCompositeSchedule": ACCEPTED,
    "GetConfiguration": {
        "configuration_key": [{"key": "A", "readonly": True, "value": "1"}],
        "unknown_key": ["B"],
    },
    "GetDiagnostics": {"file_name": "log.txt"},
    "GetInstalledCertificateIds": {"status": "NotFound"},
    "GetLocalListVersion": {"list_version": 3},
    "GetLog": ACCEPTED,
    "InstallCertificate": ACCEPTED,
    "RemoteStartTransaction": ACCEPTED,
    "RemoteStopTransaction": ACCEPTED,
    "ReserveNow": ACCEPTED,
    "Reset": ACCEPTED,
    "SendLocalList": ACCEPTED,
    "SetChargingProfile": ACCEPTED,
    "SignedUpdateFirmware": ACCEPTED,
    "TriggerMessage": ACCEPTED,
    "UnlockConnector": {"status": "Unlocked"},
    "UpdateFirmware": {},
}


def handler(action, answer):
    def handle(self, **_):
        return getattr(call_result, action)(**answer)

    # The library finds handlers by their names.
    handle.__name__ = f"on_{action}"
    return on(action)(handle)


class Answering(ChargePoint):
    pass


for action, answer in ANSWERS.items():
    setattr(Answering, f"on_{action}", handler(action, answer))


async def main(url):
    async with websockets.connect(url, subprotocols=["ocpp1.6"]) as socket:
        await Answering(url.rsplit("/", 1)[1], socket).start()


asyncio.run(main(sys.argv[1]))

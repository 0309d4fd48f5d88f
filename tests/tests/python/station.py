"""A whole charging session of the mobilityhouse `ocpp` charge point, and what the security
extension adds to it.

The library checks every answer against the official OCPP 1.6 schemas; a violation or a
CALLERROR ends this script with a traceback. It prints the transaction's id.

Usage: station.py WEBSOCKET_URL
"""

import asyncio
import sys

import websockets
from ocpp.v16 import ChargePoint, call
from ocpp.v16.datatypes import MeterValue, SampledValue
from ocpp.v16.enums import (
    AuthorizationStatus,
    ChargePointErrorCode,
    ChargePointStatus,
    DataTransferStatus,
    DiagnosticsStatus,
    FirmwareStatus,
    GenericStatus,
    Reason,
    RegistrationStatus,
    UploadLogStatus,
)


async def session(station):
    async def say(request):
        return await station.call(request, suppress=False)

    async def status(connector_status):
        await say(
            call.StatusNotification(
                connector_id=1,
                error_code=ChargePointErrorCode.no_error,
                status=connector_status,
                timestamp="2026-04-14T12:34:50Z",
            )
        )

    boot = await say(
        call.BootNotification(
            charge_point_vendor="Acme",
            charge_point_model="Wallbox",
            charge_point_serial_number="SN-0001",
            firmware_version="1.2.3",
        )
    )
    assert boot.status == RegistrationStatus.accepted, boot
    assert boot.interval > 0, boot
    await say(call.Heartbeat())
    authorized = await say(call.Authorize(id_tag="RFID_12345678"))
    assert authorized.id_tag_info["status"] == AuthorizationStatus.accepted, authorized
    await status(ChargePointStatus.preparing)
    started = await say(
        call.StartTransaction(
            connector_id=1,
            id_tag="RFID_12345678",
            meter_start=12345,
            timestamp="2026-04-14T12:34:56Z",
        )
    )
    assert started.id_tag_info["status"] == AuthorizationStatus.accepted, started
    await status(ChargePointStatus.charging)
    for minute in range(3):
        time = f"2026-04-14T12:4{minute}:00Z"
        sample = SampledValue(value=str(12400 + 100 * minute), unit="Wh")
        await say(
            call.MeterValues(
                connector_id=1,
                transaction_id=started.transaction_id,
                meter_value=[MeterValue(timestamp=time, sampled_value=[sample])],
            )
        )
    stopped = await say(
        call.StopTransaction(
            transaction_id=started.transaction_id,
            meter_stop=12600,
            timestamp="2026-04-14T13:00:00Z",
            id_tag="RFID_12345678",
            reason=Reason.local,
        )
    )
    assert stopped.id_tag_info["status"] == AuthorizationStatus.accepted, stopped
    transferred = await say(call.DataTransfer(vendor_id="acme", message_id="m", data="d"))
    assert transferred.status == DataTransferStatus.accepted, transferred
    await say(call.DiagnosticsStatusNotification(status=DiagnosticsStatus.uploaded))
    await say(call.FirmwareStatusNotification(status=FirmwareStatus.installed))

    await say(
        call.SecurityEventNotification(
            type="FirmwareUpdated",
            tech_info="1.2.4",
            timestamp="2026-04-14T13:10:00Z",
        )
    )
    await say(call.LogStatusNotification(status=UploadLogStatus.uploaded, request_id=1))
    await say(
        call.SignedFirmwareStatusNotification(status=FirmwareStatus.installed, request_id=2)
    )
    # Nobody here signs anything, but the request gets its answer.
    signed = await say(call.SignCertificate(csr="a certificate signing request"))
    assert signed.status == GenericStatus.rejected, signed
    return started.transaction_id


async def main(url):
    async with websockets.connect(url, subprotocols=["ocpp1.6"]) as socket:
        assert socket.subprotocol == "ocpp1.6", socket.subprotocol
        station = ChargePoint(url.rsplit("/", 1)[1], socket)
        listening = asyncio.create_task(station.start())
        try:
            print(await session(station))
        finally:
            listening.cancel()


asyncio.run(main(sys.argv[1]))

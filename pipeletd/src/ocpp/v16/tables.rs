//! The tables: every request's fields.

use pipelet_domain::events::EventType;

use super::schema::{
    Field,
    Kind::{self, AnyText, DateTime, Decimal, Enum, Integer, Object, Text, Uri},
    opt, req,
};

/// The fields of an action's request; `None` for what is no OCPP action.
pub(super) const fn request(action: EventType) -> Option<&'static [Field]> {
    Some(match action {
        EventType::Authorize => AUTHORIZE,
        EventType::BootNotification => BOOT_NOTIFICATION,
        EventType::CancelReservation => CANCEL_RESERVATION,
        EventType::CertificateSigned => CERTIFICATE_SIGNED,
        EventType::ChangeAvailability => CHANGE_AVAILABILITY,
        EventType::ChangeConfiguration => CHANGE_CONFIGURATION,
        EventType::ClearChargingProfile => CLEAR_CHARGING_PROFILE,
        EventType::DataTransfer => DATA_TRANSFER,
        EventType::DeleteCertificate => DELETE_CERTIFICATE,
        EventType::DiagnosticsStatusNotification => DIAGNOSTICS_STATUS_NOTIFICATION,
        EventType::ExtendedTriggerMessage => EXTENDED_TRIGGER_MESSAGE,
        EventType::FirmwareStatusNotification => FIRMWARE_STATUS_NOTIFICATION,
        EventType::GetCompositeSchedule => GET_COMPOSITE_SCHEDULE,
        EventType::GetConfiguration => GET_CONFIGURATION,
        EventType::GetDiagnostics => GET_DIAGNOSTICS,
        EventType::GetInstalledCertificateIds => GET_INSTALLED_CERTIFICATE_IDS,
        EventType::GetLog => GET_LOG,
        EventType::ClearCache | EventType::GetLocalListVersion | EventType::Heartbeat => &[],
        EventType::InstallCertificate => INSTALL_CERTIFICATE,
        EventType::LogStatusNotification => LOG_STATUS_NOTIFICATION,
        EventType::MeterValues => METER_VALUES,
        EventType::RemoteStartTransaction => REMOTE_START_TRANSACTION,
        EventType::RemoteStopTransaction => REMOTE_STOP_TRANSACTION,
        EventType::ReserveNow => RESERVE_NOW,
        EventType::Reset => RESET,
        EventType::SecurityEventNotification => SECURITY_EVENT_NOTIFICATION,
        EventType::SendLocalList => SEND_LOCAL_LIST,
        EventType::SetChargingProfile => SET_CHARGING_PROFILE,
        EventType::SignCertificate => SIGN_CERTIFICATE,
        EventType::SignedFirmwareStatusNotification => SIGNED_FIRMWARE_STATUS_NOTIFICATION,
        EventType::SignedUpdateFirmware => SIGNED_UPDATE_FIRMWARE,
        EventType::StartTransaction => START_TRANSACTION,
        EventType::StatusNotification => STATUS_NOTIFICATION,
        EventType::StopTransaction => STOP_TRANSACTION,
        EventType::TriggerMessage => TRIGGER_MESSAGE,
        EventType::UnlockConnector => UNLOCK_CONNECTOR,
        EventType::UpdateFirmware => UPDATE_FIRMWARE,
        EventType::StationConnected | EventType::StationDisconnected => return None,
    })
}

const ID_TOKEN: Kind = Text(20);

const AUTHORIZE: &[Field] = &[req("idTag", ID_TOKEN)];

const BOOT_NOTIFICATION: &[Field] = &[
    opt("chargeBoxSerialNumber", Text(25)),
    req("chargePointModel", Text(20)),
    opt("chargePointSerialNumber", Text(25)),
    req("chargePointVendor", Text(20)),
    opt("firmwareVersion", Text(50)),
    opt("iccid", Text(20)),
    opt("imsi", Text(20)),
    opt("meterSerialNumber", Text(25)),
    opt("meterType", Text(25)),
];

const CANCEL_RESERVATION: &[Field] = &[req("reservationId", Integer)];

const CERTIFICATE_SIGNED: &[Field] = &[req("certificateChain", Text(10_000))];

const CHANGE_AVAILABILITY: &[Field] = &[
    req("connectorId", Integer),
    req("type", Enum(&["Inoperative", "Operative"])),
];

const CHANGE_CONFIGURATION: &[Field] = &[req("key", Text(50)), req("value", Text(500))];

const CHARGING_PROFILE_PURPOSE: Kind =
    Enum(&["ChargePointMaxProfile", "TxDefaultProfile", "TxProfile"]);

const CHARGING_RATE_UNIT: Kind = Enum(&["A", "W"]);

const CLEAR_CHARGING_PROFILE: &[Field] = &[
    opt("id", Integer),
    opt("connectorId", Integer),
    opt("chargingProfilePurpose", CHARGING_PROFILE_PURPOSE),
    opt("stackLevel", Integer),
];

const DATA_TRANSFER: &[Field] = &[
    req("vendorId", Text(255)),
    opt("messageId", Text(50)),
    opt("data", AnyText),
];

const DELETE_CERTIFICATE: &[Field] = &[req(
    "certificateHashData",
    Object(&[
        req("hashAlgorithm", Enum(&["SHA256", "SHA384", "SHA512"])),
        req("issuerNameHash", Text(128)),
        req("issuerKeyHash", Text(128)),
        req("serialNumber", Text(40)),
    ]),
)];

const DIAGNOSTICS_STATUS_NOTIFICATION: &[Field] = &[req(
    "status",
    Enum(&["Idle", "Uploaded", "UploadFailed", "Uploading"]),
)];

const EXTENDED_TRIGGER_MESSAGE: &[Field] = &[
    req(
        "requestedMessage",
        Enum(&[
            "BootNotification",
            "LogStatusNotification",
            "FirmwareStatusNotification",
            "Heartbeat",
            "MeterValues",
            "SignChargePointCertificate",
            "StatusNotification",
        ]),
    ),
    opt("connectorId", Integer),
];

const FIRMWARE_STATUS_NOTIFICATION: &[Field] = &[req(
    "status",
    Enum(&[
        "Downloaded",
        "DownloadFailed",
        "Downloading",
        "Idle",
        "InstallationFailed",
        "Installing",
        "Installed",
    ]),
)];

const GET_COMPOSITE_SCHEDULE: &[Field] = &[
    req("connectorId", Integer),
    req("duration", Integer),
    opt("chargingRateUnit", CHARGING_RATE_UNIT),
];

const GET_CONFIGURATION: &[Field] = &[opt("key", Text(50)).array(0)];

const GET_DIAGNOSTICS: &[Field] = &[
    req("location", Uri),
    opt("retries", Integer),
    opt("retryInterval", Integer),
    opt("startTime", DateTime),
    opt("stopTime", DateTime),
];

const CERTIFICATE_USE: Kind = Enum(&[
    "CentralSystemRootCertificate",
    "ManufacturerRootCertificate",
]);

const GET_INSTALLED_CERTIFICATE_IDS: &[Field] = &[req("certificateType", CERTIFICATE_USE)];

const GET_LOG: &[Field] = &[
    req("logType", Enum(&["DiagnosticsLog", "SecurityLog"])),
    req("requestId", Integer),
    opt("retries", Integer),
    opt("retryInterval", Integer),
    req(
        "log",
        Object(&[
            req("remoteLocation", Text(512)),
            opt("oldestTimestamp", DateTime),
            opt("latestTimestamp", DateTime),
        ]),
    ),
];

const INSTALL_CERTIFICATE: &[Field] = &[
    req("certificateType", CERTIFICATE_USE),
    req("certificate", Text(5_500)),
];

const LOG_STATUS_NOTIFICATION: &[Field] = &[
    req(
        "status",
        Enum(&[
            "BadMessage",
            "Idle",
            "NotSupportedOperation",
            "PermissionDenied",
            "Uploaded",
            "UploadFailure",
            "Uploading",
        ]),
    ),
    opt("requestId", Integer),
];

const METER_VALUES: &[Field] = &[
    req("connectorId", Integer),
    opt("transactionId", Integer),
    req("meterValue", METER_VALUE).array(1),
];

const METER_VALUE: Kind = Object(&[
    req("timestamp", DateTime),
    req("sampledValue", SAMPLED_VALUE).array(1),
]);

const SAMPLED_VALUE: Kind = Object(&[
    req("value", AnyText),
    opt(
        "context",
        Enum(&[
            "Interruption.Begin",
            "Interruption.End",
            "Other",
            "Sample.Clock",
            "Sample.Periodic",
            "Transaction.Begin",
            "Transaction.End",
            "Trigger",
        ]),
    ),
    opt("format", Enum(&["Raw", "SignedData"])),
    opt("measurand", MEASURAND),
    opt(
        "phase",
        Enum(&[
            "L1", "L2", "L3", "N", "L1-N", "L2-N", "L3-N", "L1-L2", "L2-L3", "L3-L1",
        ]),
    ),
    opt(
        "location",
        Enum(&["Body", "Cable", "EV", "Inlet", "Outlet"]),
    ),
    // The first edition spelled "Celcius"; both are in use.
    opt(
        "unit",
        Enum(&[
            "Wh",
            "kWh",
            "varh",
            "kvarh",
            "W",
            "kW",
            "VA",
            "kVA",
            "var",
            "kvar",
            "A",
            "V",
            "Celsius",
            "Celcius",
            "Fahrenheit",
            "K",
            "Percent",
        ]),
    ),
]);

const MEASURAND: Kind = Enum(&[
    "Current.Export",
    "Current.Import",
    "Current.Offered",
    "Energy.Active.Export.Register",
    "Energy.Active.Import.Register",
    "Energy.Reactive.Export.Register",
    "Energy.Reactive.Import.Register",
    "Energy.Active.Export.Interval",
    "Energy.Active.Import.Interval",
    "Energy.Reactive.Export.Interval",
    "Energy.Reactive.Import.Interval",
    "Frequency",
    "Power.Active.Export",
    "Power.Active.Import",
    "Power.Factor",
    "Power.Offered",
    "Power.Reactive.Export",
    "Power.Reactive.Import",
    "RPM",
    "SoC",
    "Temperature",
    "Voltage",
]);

const REMOTE_START_TRANSACTION: &[Field] = &[
    opt("connectorId", Integer),
    req("idTag", ID_TOKEN),
    opt("chargingProfile", CHARGING_PROFILE),
];

const CHARGING_PROFILE: Kind = Object(&[
    req("chargingProfileId", Integer),
    opt("transactionId", Integer),
    req("stackLevel", Integer),
    req("chargingProfilePurpose", CHARGING_PROFILE_PURPOSE),
    req(
        "chargingProfileKind",
        Enum(&["Absolute", "Recurring", "Relative"]),
    ),
    opt("recurrencyKind", Enum(&["Daily", "Weekly"])),
    opt("validFrom", DateTime),
    opt("validTo", DateTime),
    req("chargingSchedule", CHARGING_SCHEDULE),
]);

const CHARGING_SCHEDULE: Kind = Object(&[
    opt("duration", Integer),
    opt("startSchedule", DateTime),
    req("chargingRateUnit", CHARGING_RATE_UNIT),
    req(
        "chargingSchedulePeriod",
        Object(&[
            req("startPeriod", Integer),
            req("limit", Decimal),
            opt("numberPhases", Integer),
        ]),
    )
    .array(1),
    opt("minChargingRate", Decimal),
]);

const REMOTE_STOP_TRANSACTION: &[Field] = &[req("transactionId", Integer)];

const RESERVE_NOW: &[Field] = &[
    req("connectorId", Integer),
    req("expiryDate", DateTime),
    req("idTag", ID_TOKEN),
    opt("parentIdTag", ID_TOKEN),
    req("reservationId", Integer),
];

const RESET: &[Field] = &[req("type", Enum(&["Hard", "Soft"]))];

const SECURITY_EVENT_NOTIFICATION: &[Field] = &[
    req("type", Text(50)),
    req("timestamp", DateTime),
    opt("techInfo", Text(255)),
];

const SEND_LOCAL_LIST: &[Field] = &[
    req("listVersion", Integer),
    opt(
        "localAuthorizationList",
        Object(&[req("idTag", ID_TOKEN), opt("idTagInfo", ID_TAG_INFO)]),
    )
    .array(0),
    req("updateType", Enum(&["Differential", "Full"])),
];

const ID_TAG_INFO: Kind = Object(&[
    opt("expiryDate", DateTime),
    opt("parentIdTag", ID_TOKEN),
    req(
        "status",
        Enum(&["Accepted", "Blocked", "Expired", "Invalid", "ConcurrentTx"]),
    ),
]);

const SET_CHARGING_PROFILE: &[Field] = &[
    req("connectorId", Integer),
    req("csChargingProfiles", CHARGING_PROFILE),
];

const SIGN_CERTIFICATE: &[Field] = &[req("csr", Text(5_500))];

const SIGNED_FIRMWARE_STATUS_NOTIFICATION: &[Field] = &[
    req(
        "status",
        Enum(&[
            "Downloaded",
            "DownloadFailed",
            "Downloading",
            "DownloadScheduled",
            "DownloadPaused",
            "Idle",
            "InstallationFailed",
            "Installing",
            "Installed",
            "InstallRebooting",
            "InstallScheduled",
            "InstallVerificationFailed",
            "InvalidSignature",
            "SignatureVerified",
        ]),
    ),
    opt("requestId", Integer),
];

const SIGNED_UPDATE_FIRMWARE: &[Field] = &[
    opt("retries", Integer),
    opt("retryInterval", Integer),
    req("requestId", Integer),
    req(
        "firmware",
        Object(&[
            req("location", Text(512)),
            req("retrieveDateTime", DateTime),
            opt("installDateTime", DateTime),
            req("signingCertificate", Text(5_500)),
            req("signature", Text(800)),
        ]),
    ),
];

const START_TRANSACTION: &[Field] = &[
    req("connectorId", Integer),
    req("idTag", ID_TOKEN),
    req("meterStart", Integer),
    opt("reservationId", Integer),
    req("timestamp", DateTime),
];

const STATUS_NOTIFICATION: &[Field] = &[
    req("connectorId", Integer),
    req(
        "errorCode",
        Enum(&[
            "ConnectorLockFailure",
            "EVCommunicationError",
            "GroundFailure",
            "HighTemperature",
            "InternalError",
            "LocalListConflict",
            "NoError",
            "OtherError",
            "OverCurrentFailure",
            "OverVoltage",
            "PowerMeterFailure",
            "PowerSwitchFailure",
            "ReaderFailure",
            "ResetFailure",
            "UnderVoltage",
            "WeakSignal",
        ]),
    ),
    opt("info", Text(50)),
    req(
        "status",
        Enum(&[
            "Available",
            "Preparing",
            "Charging",
            "SuspendedEVSE",
            "SuspendedEV",
            "Finishing",
            "Reserved",
            "Unavailable",
            "Faulted",
        ]),
    ),
    opt("timestamp", DateTime),
    opt("vendorId", Text(255)),
    opt("vendorErrorCode", Text(50)),
];

const STOP_TRANSACTION: &[Field] = &[
    opt("idTag", ID_TOKEN),
    req("meterStop", Integer),
    req("timestamp", DateTime),
    req("transactionId", Integer),
    opt(
        "reason",
        Enum(&[
            "DeAuthorized",
            "EmergencyStop",
            "EVDisconnected",
            "HardReset",
            "Local",
            "Other",
            "PowerLoss",
            "Reboot",
            "Remote",
            "SoftReset",
            "UnlockCommand",
        ]),
    ),
    opt("transactionData", METER_VALUE).array(0),
];

const TRIGGER_MESSAGE: &[Field] = &[
    req(
        "requestedMessage",
        Enum(&[
            "BootNotification",
            "DiagnosticsStatusNotification",
            "FirmwareStatusNotification",
            "Heartbeat",
            "MeterValues",
            "StatusNotification",
        ]),
    ),
    opt("connectorId", Integer),
];

const UNLOCK_CONNECTOR: &[Field] = &[req("connectorId", Integer)];

const UPDATE_FIRMWARE: &[Field] = &[
    req("location", Uri),
    opt("retries", Integer),
    req("retrieveDate", DateTime),
    opt("retryInterval", Integer),
];

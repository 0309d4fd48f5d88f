//! The event catalogue: one table, from which names, codes, groups and the documentation come.

use std::{fmt, str::FromStr};

/// Who sends the message that an event is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    StationToCsms,
    CsmsToStation,
    Both,
    /// Not a message: the connection itself.
    Connection,
}

impl Direction {
    pub const fn name(self) -> &'static str {
        match self {
            Self::StationToCsms => "station_to_csms",
            Self::CsmsToStation => "csms_to_station",
            Self::Both => "both",
            Self::Connection => "connection",
        }
    }
}

/// The OCPP 1.6 feature profile that an action belongs to (OCPP 1.6 edition 2, section 3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Profile {
    Core,
    FirmwareManagement,
    LocalAuthListManagement,
    RemoteTrigger,
    Reservation,
    SmartCharging,
    /// The messages of the OCPP 1.6 security whitepaper, edition 2.
    Security,
    None,
}

impl Profile {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Core => "Core",
            Self::FirmwareManagement => "FirmwareManagement",
            Self::LocalAuthListManagement => "LocalAuthListManagement",
            Self::RemoteTrigger => "RemoteTrigger",
            Self::Reservation => "Reservation",
            Self::SmartCharging => "SmartCharging",
            Self::Security => "Security",
            Self::None => "none",
        }
    }
}

/// The groups that the catalogue is divided into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Group {
    Standard,
    Extended,
    Security,
    Connection,
}

impl Group {
    /// In the catalogue's order.
    pub const ALL: &[Self] = &[
        Self::Standard,
        Self::Extended,
        Self::Security,
        Self::Connection,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Extended => "extended",
            Self::Security => "security",
            Self::Connection => "connection",
        }
    }
}

impl FromStr for Group {
    type Err = UnknownGroup;

    fn from_str(name: &str) -> Result<Self, UnknownGroup> {
        let found = Self::ALL.iter().copied().find(|group| group.name() == name);
        found.ok_or_else(|| UnknownGroup {
            name: name.to_owned(),
            nearest: nearest(name, Self::ALL, Self::name),
        })
    }
}

/// A name that no group of the catalogue has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown event group {name:?}{}", group_suggestion(*.nearest))]
pub struct UnknownGroup {
    pub name: String,
    /// The group whose name is nearest to it, where one is near.
    pub nearest: Option<Group>,
}

fn group_suggestion(nearest: Option<Group>) -> String {
    nearest.map_or_else(
        || {
            let names: Vec<_> = Group::ALL.iter().map(|group| group.name()).collect();
            format!("; there are {}", names.join(", "))
        },
        |group| format!(", did you mean \"group:{}\"?", group.name()),
    )
}

/// A name that is in no row of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown event type {name:?}{}", suggestion(*.nearest))]
pub struct UnknownEventType {
    pub name: String,
    /// The catalogue's name that is nearest to it, where one is near.
    pub nearest: Option<EventType>,
}

impl UnknownEventType {
    /// In the words of who asks a station for something.
    pub fn as_action(&self) -> String {
        format!("unknown action {:?}{}", self.name, suggestion(self.nearest))
    }
}

fn suggestion(nearest: Option<EventType>) -> String {
    nearest.map_or_else(String::new, |kind| {
        format!(", did you mean {kind:?}?", kind = kind.name())
    })
}

macro_rules! catalogue {
    ($($code:literal $name:ident $direction:ident $profile:ident $group:ident)*) => {
        /// An event type: the name of an OCPP 1.6 action, or a change of the connection.
        ///
        /// The discriminant is the code in stored records: it is fixed for ever, and one that
        /// is retired stays reserved.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum EventType { $($name = $code,)* }

        impl EventType {
            /// Every type, in the catalogue's order.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            pub const fn direction(self) -> Direction {
                match self { $(Self::$name => Direction::$direction,)* }
            }

            pub const fn profile(self) -> Profile {
                match self { $(Self::$name => Profile::$profile,)* }
            }

            pub const fn group(self) -> Group {
                match self { $(Self::$name => Group::$group,)* }
            }

            /// The code in stored records.
            pub const fn code(self) -> u8 {
                self as u8
            }

            pub const fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$name),)* _ => None }
            }
        }
    };
}

catalogue! {
    1  Authorize                      StationToCsms Core                    Standard
    2  BootNotification               StationToCsms Core                    Standard
    3  Heartbeat                      StationToCsms Core                    Standard
    4  StartTransaction               StationToCsms Core                    Standard
    5  StopTransaction                StationToCsms Core                    Standard
    6  StatusNotification             StationToCsms Core                    Standard
    7  MeterValues                    StationToCsms Core                    Standard
    8  DataTransfer                   Both          Core                    Standard
    9  ChangeAvailability             CsmsToStation Core                    Standard
    10 ChangeConfiguration            CsmsToStation Core                    Standard
    11 ClearCache                     CsmsToStation Core                    Standard
    12 GetConfiguration               CsmsToStation Core                    Standard
    13 RemoteStartTransaction         CsmsToStation Core                    Standard
    14 RemoteStopTransaction          CsmsToStation Core                    Standard
    15 Reset                          CsmsToStation Core                    Standard
    16 UnlockConnector                CsmsToStation Core                    Standard
    17 GetDiagnostics                 CsmsToStation FirmwareManagement      Standard
    18 UpdateFirmware                 CsmsToStation FirmwareManagement      Standard
    19 TriggerMessage                 CsmsToStation RemoteTrigger           Standard
    20 ReserveNow                     CsmsToStation Reservation             Standard
    21 SendLocalList                  CsmsToStation LocalAuthListManagement Standard
    22 DiagnosticsStatusNotification  StationToCsms FirmwareManagement      Standard
    23 FirmwareStatusNotification     StationToCsms FirmwareManagement      Standard
    24 CancelReservation              CsmsToStation Reservation             Extended
    25 ClearChargingProfile           CsmsToStation SmartCharging           Extended
    26 GetCompositeSchedule           CsmsToStation SmartCharging           Extended
    27 GetLocalListVersion            CsmsToStation LocalAuthListManagement Extended
    28 SetChargingProfile             CsmsToStation SmartCharging           Extended
    29 SecurityEventNotification      StationToCsms Security                Security
    30 LogStatusNotification          StationToCsms Security                Security
    31 SignedFirmwareStatusNotification StationToCsms Security              Security
    32 SignCertificate                StationToCsms Security                Security
    33 CertificateSigned              CsmsToStation Security                Security
    34 DeleteCertificate              CsmsToStation Security                Security
    35 ExtendedTriggerMessage         CsmsToStation Security                Security
    36 GetInstalledCertificateIds     CsmsToStation Security                Security
    37 GetLog                         CsmsToStation Security                Security
    38 InstallCertificate             CsmsToStation Security                Security
    39 SignedUpdateFirmware           CsmsToStation Security                Security
    40 StationConnected               Connection    None                    Connection
    41 StationDisconnected            Connection    None                    Connection
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for EventType {
    type Err = UnknownEventType;

    /// Names are case-sensitive, as OCPP's actions are.
    fn from_str(name: &str) -> Result<Self, UnknownEventType> {
        Self::ALL
            .iter()
            .copied()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| UnknownEventType {
                name: name.to_owned(),
                nearest: nearest(name, Self::ALL, Self::name),
            })
    }
}

/// The one whose name is at most a third of its length away from `name`, whatever the case.
fn nearest<T: Copy>(name: &str, all: &[T], name_of: impl Fn(T) -> &'static str) -> Option<T> {
    // Nothing is near to a longer one, and a megabyte of it would take seconds to measure.
    if name.len() > 100 {
        return None;
    }
    let name = name.to_lowercase();
    all.iter()
        .map(|one| (edit_distance(&name, &name_of(*one).to_lowercase()), *one))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, one)| *distance <= name_of(*one).len() / 3)
        .map(|(_, one)| one)
}

/// Levenshtein's distance, in characters.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_has_the_contracts_counts() {
        let count = |group| {
            EventType::ALL
                .iter()
                .filter(|kind| kind.group() == group)
                .count()
        };
        assert_eq!(count(Group::Standard), 23);
        assert_eq!(count(Group::Extended), 5);
        assert_eq!(count(Group::Security), 11);
        assert_eq!(count(Group::Connection), 2);
    }

    #[test]
    fn names_and_codes_lead_back() {
        for kind in EventType::ALL {
            assert_eq!(kind.name().parse(), Ok(*kind));
            assert_eq!(EventType::from_code(kind.code()), Some(*kind));
        }
        assert_eq!(EventType::from_code(0), None);
    }

    #[test]
    fn a_near_miss_is_suggested() {
        let check = |name: &str, nearest| {
            let error = name.parse::<EventType>().unwrap_err();
            assert_eq!(error.nearest, nearest, "{name}");
        };
        check("startTransaction", Some(EventType::StartTransaction));
        check("MeterValue", Some(EventType::MeterValues));
        check("Boot", None);
        check("", None);
        check("invoice.paid", None);
        check(&"Heartbeat".repeat(100_000), None);
        assert_eq!(
            "Hearbeat".parse::<EventType>().unwrap_err().to_string(),
            "unknown event type \"Hearbeat\", did you mean \"Heartbeat\"?"
        );
    }
}

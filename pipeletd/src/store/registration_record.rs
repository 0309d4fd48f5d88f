//! A station's registration as a stored record.

use jiff::Timestamp;
use pipelet_domain::{
    events::StationId,
    projection::BootStatus,
    registration::{PasswordHash, Registration, SecurityProfile},
};
use serde::{Deserialize, Serialize};

use super::{
    StoreError,
    codec::record_error,
    records::{decode, encode},
};

#[derive(Serialize, Deserialize)]
struct RegistrationRecord {
    station: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    password: Option<PasswordRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    security_profile: Option<u8>,
    boot_policy: String,
    created_at: Timestamp,
    updated_at: Timestamp,
}

/// SHA-256 of the salt and the key.
#[derive(Serialize, Deserialize)]
struct PasswordRecord {
    salt: [u8; 16],
    hash: [u8; 32],
}

pub(super) fn encode_registration(registration: &Registration) -> Vec<u8> {
    let password = registration.password.as_ref();
    encode(&RegistrationRecord {
        station: registration.station.as_str().to_owned(),
        password: password.map(|password| PasswordRecord {
            salt: password.salt(),
            hash: password.hash(),
        }),
        security_profile: registration.profile.map(SecurityProfile::number),
        boot_policy: registration.boot_policy.name().to_owned(),
        created_at: registration.created_at,
        updated_at: registration.updated_at,
    })
}

pub(super) fn decode_registration(bytes: &[u8]) -> Result<Registration, StoreError> {
    let what = "registration";
    let record: RegistrationRecord = decode(what, bytes)?;
    let bad = |field: &str| record_error(what, format!("it has a bad {field}"));
    // A profile that can't be read must not become none: the station would be let in without it.
    let profile = record.security_profile.map(|number| {
        SecurityProfile::from_number(number.into()).ok_or_else(|| bad("security profile"))
    });
    Ok(Registration {
        station: StationId::new(&record.station).map_err(|_| bad("station id"))?,
        password: record
            .password
            .map(|password| PasswordHash::from_parts(password.salt, password.hash)),
        profile: profile.transpose()?,
        boot_policy: BootStatus::from_name(&record.boot_policy)
            .ok_or_else(|| bad("boot policy"))?,
        created_at: record.created_at,
        updated_at: record.updated_at,
    })
}

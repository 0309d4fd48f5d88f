//! What a caller says of a station, and all that is wrong with it.

use jiff::Timestamp;

use super::{PasswordHash, Registration, Salt, SecurityProfile};
use crate::{
    events::StationId,
    projection::BootStatus,
    webhooks::{Fault, Field, Secret},
};

/// What a caller says of a station. `Null` takes a field back to what a new entry has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RegistrationDraft {
    pub password: Field<Secret>,
    pub security_profile: Field<u64>,
    pub boot_policy: Field<String>,
}

impl RegistrationDraft {
    /// Changes what the draft mentions and leaves the rest; without an entry it makes one.
    pub fn apply(
        self,
        station: &StationId,
        current: Option<&Registration>,
        salt: Salt,
        now: Timestamp,
    ) -> Result<Registration, Vec<Fault>> {
        let mut faults = Vec::new();
        let password = match self.password {
            Field::Absent => current.and_then(|entry| entry.password.clone()),
            Field::Null => None,
            Field::Value(secret) => PasswordHash::new(secret.expose(), salt)
                .map_err(|error| {
                    faults.push(fault("password", "invalid_password", error.to_string()));
                })
                .ok(),
        };
        let password_failed = !faults.is_empty();
        let profile = match self.security_profile {
            Field::Absent => current.and_then(|entry| entry.profile),
            Field::Null => None,
            Field::Value(number) => {
                let profile = SecurityProfile::from_number(number);
                if profile.is_none() {
                    let message = "a security profile is 0 (none), 1, 2 or 3";
                    faults.push(fault(
                        "security_profile",
                        "invalid_security_profile",
                        message,
                    ));
                }
                profile
            }
        };
        let boot_policy = match self.boot_policy {
            Field::Absent => current.map_or(BootStatus::Accepted, |entry| entry.boot_policy),
            Field::Null => BootStatus::Accepted,
            Field::Value(name) => BootStatus::from_name(&name).unwrap_or_else(|| {
                let message = format!("{name:?} is not Accepted, Pending or Rejected");
                faults.push(fault("boot_policy", "invalid_boot_policy", message));
                BootStatus::Accepted
            }),
        };
        if !password_failed {
            faults.extend(profile.and_then(|profile| misfit(profile, password.is_some())));
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Registration {
            station: station.clone(),
            password,
            profile,
            boot_policy,
            created_at: current.map_or(now, |entry| entry.created_at),
            updated_at: now,
        })
    }
}

/// A password that nobody would ask for is a mistake, and so is a lock without a key.
fn misfit(profile: SecurityProfile, has_password: bool) -> Option<Fault> {
    let number = profile.number();
    match (profile.has_password(), has_password) {
        (true, false) => Some(fault(
            "password",
            "required",
            format!("security profile {number} needs a password"),
        )),
        (false, true) => Some(fault(
            "password",
            "unused",
            format!("security profile {number} asks for no password; clear it"),
        )),
        (true, true) | (false, false) => None,
    }
}

fn fault(key: &str, code: &'static str, message: impl Into<String>) -> Fault {
    Fault {
        pointer: format!("/{key}"),
        code,
        message: message.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWORD: &str = "0123456789abcdef0123";

    fn apply(
        draft: RegistrationDraft,
        current: Option<&Registration>,
    ) -> Result<Registration, Vec<&'static str>> {
        let now = Timestamp::UNIX_EPOCH;
        let station = StationId::new("CP1").unwrap();
        let applied = draft.apply(&station, current, [1; 16], now);
        applied.map_err(|faults| faults.into_iter().map(|fault| fault.code).collect())
    }

    fn password(text: &str) -> Field<Secret> {
        Field::Value(Secret::new(text))
    }

    #[test]
    fn a_new_entry_asks_for_nothing() {
        let entry = apply(RegistrationDraft::default(), None).unwrap();
        assert_eq!(
            (entry.password, entry.profile, entry.boot_policy),
            (None, None, BootStatus::Accepted)
        );
    }

    #[test]
    fn a_change_leaves_what_it_does_not_mention() {
        let draft = RegistrationDraft {
            password: password(PASSWORD),
            security_profile: Field::Value(1),
            boot_policy: Field::Value("Pending".to_owned()),
        };
        let entry = apply(draft, None).unwrap();
        let draft = RegistrationDraft {
            boot_policy: Field::Null,
            ..RegistrationDraft::default()
        };
        let changed = apply(draft, Some(&entry)).unwrap();
        assert_eq!(changed.boot_policy, BootStatus::Accepted);
        assert_eq!(
            (&changed.password, changed.profile),
            (&entry.password, Some(SecurityProfile::Basic))
        );
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let check = |draft: RegistrationDraft, expected: &[&str]| {
            assert_eq!(
                apply(draft.clone(), None).unwrap_err(),
                expected,
                "{draft:?}"
            );
        };
        let profile = |number| RegistrationDraft {
            security_profile: Field::Value(number),
            ..RegistrationDraft::default()
        };
        check(
            RegistrationDraft {
                password: password("short"),
                security_profile: Field::Value(4),
                boot_policy: Field::Value("accepted".to_owned()),
            },
            &[
                "invalid_password",
                "invalid_security_profile",
                "invalid_boot_policy",
            ],
        );
        check(profile(1), &["required"]);
        check(profile(2), &["required"]);
        for number in [0, 3] {
            let draft = RegistrationDraft {
                password: password(PASSWORD),
                ..profile(number)
            };
            check(draft, &["unused"]);
            assert!(apply(profile(number), None).is_ok());
        }
    }
}

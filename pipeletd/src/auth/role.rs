//! What a key allows: each role may do all that the one below it may.

use std::{fmt, str::FromStr};

/// By ascending power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Sees everything but secrets, and changes nothing.
    ReadOnly,
    /// Changes webhooks, dead letters, stations and id tags, and sends commands.
    Operator,
    /// Makes and revokes keys, too.
    Admin,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a role is one of admin, operator and read-only")]
pub struct InvalidRole;

impl Role {
    pub const ALL: [Self; 3] = [Self::Admin, Self::Operator, Self::ReadOnly];

    pub const fn name(self) -> &'static str {
        match self {
            Self::ReadOnly => "read-only",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    pub fn allows(self, needed: Self) -> bool {
        self >= needed
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = InvalidRole;

    fn from_str(text: &str) -> Result<Self, InvalidRole> {
        let named = Self::ALL.into_iter().find(|role| role.name() == text);
        named.ok_or(InvalidRole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_has_its_name_and_what_is_below_it() {
        let check = |text: &str, allowed: &[Role]| {
            let role: Role = text.parse().unwrap();
            assert_eq!(role.to_string(), text);
            let all = Role::ALL.into_iter().filter(|needed| role.allows(*needed));
            assert_eq!(all.collect::<Vec<_>>(), allowed);
        };
        check("admin", &Role::ALL);
        check("operator", &[Role::Operator, Role::ReadOnly]);
        check("read-only", &[Role::ReadOnly]);
        for wrong in ["", "Admin", "root", "readonly"] {
            assert_eq!(wrong.parse::<Role>(), Err(InvalidRole), "{wrong}");
        }
    }
}

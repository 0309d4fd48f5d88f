//! API keys.

use pipelet_proto::v1;
use serde::Serialize;

use super::{or_dash, time::Time};
use crate::{
    output::{Describe, Row},
    table::Details,
};

#[derive(Debug, Serialize)]
pub(crate) struct ApiKey {
    id: u64,
    name: String,
    role: String,
    created_at: Option<Time>,
    expires_at: Option<Time>,
    expired: bool,
    last_used_at: Option<Time>,
}

/// A key with its secret part, shown once. Without `Debug`, so no log can have it.
#[derive(Serialize)]
pub(crate) struct NewApiKey {
    #[serde(flatten)]
    api_key: ApiKey,
    key: String,
}

impl From<v1::ApiKey> for ApiKey {
    fn from(wire: v1::ApiKey) -> Self {
        Self {
            id: wire.id,
            name: wire.name,
            role: wire.role,
            created_at: Time::from_wire(wire.created_at),
            expires_at: Time::from_wire(wire.expires_at),
            expired: wire.expired,
            last_used_at: Time::from_wire(wire.last_used_at),
        }
    }
}

impl NewApiKey {
    pub(crate) fn new(api_key: v1::ApiKey, key: String) -> Self {
        Self {
            api_key: api_key.into(),
            key,
        }
    }
}

impl ApiKey {
    /// When it expires, and whether that has come.
    fn end(&self) -> String {
        match self.expires_at {
            Some(end) if self.expired => format!("{end} (expired)"),
            Some(end) => end.to_string(),
            None => "never".to_owned(),
        }
    }
}

impl Row for ApiKey {
    const HEADERS: &'static [&'static str] =
        &["ID", "NAME", "ROLE", "CREATED", "EXPIRES", "LAST USED"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.name.clone(),
            self.role.clone(),
            or_dash(self.created_at),
            self.end(),
            or_dash(self.last_used_at),
        ]
    }
}

impl Describe for NewApiKey {
    fn describe(&self) -> Details {
        Details::default()
            .line("id", self.api_key.id.to_string())
            .line("name", &self.api_key.name)
            .line("role", &self.api_key.role)
            .line("created", or_dash(self.api_key.created_at))
            .line("expires", self.api_key.end())
            .line("key", &self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_is_one_flat_object() {
        let wire = v1::ApiKey {
            id: 1,
            name: "ci".into(),
            role: "operator".into(),
            ..v1::ApiKey::default()
        };
        assert_eq!(
            serde_json::to_string(&NewApiKey::new(wire, "hcpms_live_x".into())).unwrap(),
            concat!(
                r#"{"id":1,"name":"ci","role":"operator","created_at":null,"expires_at":null,"#,
                r#""expired":false,"last_used_at":null,"key":"hcpms_live_x"}"#
            )
        );
    }

    #[test]
    fn an_expired_key_is_marked() {
        let end = |seconds: Option<i64>, expired| {
            let wire = v1::ApiKey {
                expires_at: seconds.map(|seconds| prost_types::Timestamp { seconds, nanos: 0 }),
                expired,
                ..v1::ApiKey::default()
            };
            ApiKey::from(wire).end()
        };
        assert_eq!(end(None, false), "never");
        assert_eq!(end(Some(1_776_170_096), false), "2026-04-14T12:34:56Z");
        assert_eq!(
            end(Some(1_776_170_096), true),
            "2026-04-14T12:34:56Z (expired)"
        );
    }
}

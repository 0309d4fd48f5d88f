//! API keys.

use pipelet_proto::v1::{ApiKey, CreateApiKeyResponse};

use super::time::{Time, shown};
use crate::{
    output::{Describe, Row},
    table::Details,
};

/// When it expires, and whether that has come.
fn end(key: &ApiKey) -> String {
    match Time::from_wire(key.expires_at) {
        Some(end) if key.expired => format!("{end} (expired)"),
        Some(end) => end.to_string(),
        None => "never".to_owned(),
    }
}

impl Row for ApiKey {
    const HEADERS: &'static [&'static str] =
        &["ID", "NAME", "ROLE", "CREATED", "EXPIRES", "LAST USED"];
    const OPTIONAL: &'static [&'static str] = &["CREATED", "LAST USED"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.name.clone(),
            self.role.clone(),
            shown(self.created_at),
            end(self),
            shown(self.last_used_at),
        ]
    }
}

/// With its secret part, shown once.
impl Describe for CreateApiKeyResponse {
    fn describe(&self) -> Details {
        let key = self.api_key.clone().unwrap_or_default();
        Details::default()
            .line("id", key.id.to_string())
            .line("name", &key.name)
            .line("role", &key.role)
            .line("created", shown(key.created_at))
            .line("expires", end(&key))
            .line("key", &self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_is_one_flat_object() {
        let api_key = ApiKey {
            id: 1,
            name: "ci".into(),
            role: "operator".into(),
            ..ApiKey::default()
        };
        assert_eq!(
            serde_json::to_string(&CreateApiKeyResponse {
                api_key: Some(api_key),
                key: "hcpms_live_x".into(),
            })
            .unwrap(),
            concat!(
                r#"{"id":1,"name":"ci","role":"operator","created_at":null,"expires_at":null,"#,
                r#""expired":false,"last_used_at":null,"key":"hcpms_live_x"}"#
            )
        );
    }

    #[test]
    fn an_expired_key_is_marked() {
        let end = |seconds: Option<i64>, expired| {
            let key = ApiKey {
                expires_at: seconds.map(|seconds| prost_types::Timestamp { seconds, nanos: 0 }),
                expired,
                ..ApiKey::default()
            };
            super::end(&key)
        };
        assert_eq!(end(None, false), "never");
        assert_eq!(end(Some(1_776_170_096), false), "2026-04-14T12:34:56Z");
        assert_eq!(
            end(Some(1_776_170_096), true),
            "2026-04-14T12:34:56Z (expired)"
        );
    }
}

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
    created_at: Option<Time>,
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
            created_at: Time::from_wire(wire.created_at),
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

impl Row for ApiKey {
    const HEADERS: &'static [&'static str] = &["ID", "NAME", "CREATED"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.name.clone(),
            or_dash(self.created_at),
        ]
    }
}

impl Describe for NewApiKey {
    fn describe(&self) -> Details {
        Details::default()
            .line("id", self.api_key.id.to_string())
            .line("name", &self.api_key.name)
            .line("created", or_dash(self.api_key.created_at))
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
            created_at: None,
        };
        assert_eq!(
            serde_json::to_string(&NewApiKey::new(wire, "hcpms_live_x".into())).unwrap(),
            r#"{"id":1,"name":"ci","created_at":null,"key":"hcpms_live_x"}"#
        );
    }
}

//! Registered id tags.

use pipelet_proto::v1;
use serde::Serialize;

use super::{or_dash, time::Time};
use crate::{
    output::{Describe, Row},
    table::Details,
};

#[derive(Debug, Serialize)]
#[expect(clippy::struct_field_names, reason = "the fields are the keys of REST")]
pub(crate) struct IdTag {
    id_tag: String,
    status: String,
    expiry_date: Option<Time>,
    parent_id_tag: Option<String>,
    created_at: Option<Time>,
    updated_at: Option<Time>,
}

impl From<v1::IdTag> for IdTag {
    fn from(wire: v1::IdTag) -> Self {
        Self {
            id_tag: wire.id_tag,
            status: wire.status,
            expiry_date: Time::from_wire(wire.expiry_date),
            parent_id_tag: wire.parent_id_tag,
            created_at: Time::from_wire(wire.created_at),
            updated_at: Time::from_wire(wire.updated_at),
        }
    }
}

impl Row for IdTag {
    const HEADERS: &'static [&'static str] = &["ID TAG", "STATUS", "EXPIRES", "PARENT"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id_tag.clone(),
            self.status.clone(),
            or_dash(self.expiry_date),
            or_dash(self.parent_id_tag.as_ref()),
        ]
    }
}

impl Describe for IdTag {
    fn describe(&self) -> Details {
        Details::default()
            .line("id tag", &self.id_tag)
            .line("status", &self.status)
            .line("expires", or_dash(self.expiry_date))
            .line("parent", or_dash(self.parent_id_tag.as_ref()))
            .line("created", or_dash(self.created_at))
            .line("updated", or_dash(self.updated_at))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_id_tag_has_the_keys_of_rest() {
        let tag = IdTag::from(v1::IdTag {
            id_tag: "Rfid_1".into(),
            status: "Blocked".into(),
            expiry_date: Some(prost_types::Timestamp {
                seconds: 1_776_170_096,
                nanos: 0,
            }),
            parent_id_tag: None,
            created_at: None,
            updated_at: None,
        });
        assert_eq!(
            serde_json::to_value(&tag).unwrap(),
            json!({
                "id_tag": "Rfid_1",
                "status": "Blocked",
                "expiry_date": "2026-04-14T12:34:56.000Z",
                "parent_id_tag": null,
                "created_at": null,
                "updated_at": null,
            })
        );
        assert_eq!(
            tag.cells(),
            ["Rfid_1", "Blocked", "2026-04-14T12:34:56Z", "-"]
        );
    }
}

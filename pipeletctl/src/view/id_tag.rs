//! Registered id tags.

use pipelet_proto::v1::IdTag;

use super::time::shown;
use crate::{
    output::{Describe, Row},
    table::Details,
    words::or_dash,
};

impl Row for IdTag {
    const HEADERS: &'static [&'static str] = &["ID TAG", "STATUS", "EXPIRES", "PARENT"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id_tag.clone(),
            self.status.clone(),
            shown(self.expiry_date),
            or_dash(self.parent_id_tag.as_ref()),
        ]
    }
}

impl Describe for IdTag {
    fn describe(&self) -> Details {
        Details::default()
            .line("id tag", &self.id_tag)
            .line("status", &self.status)
            .line("expires", shown(self.expiry_date))
            .line("parent", or_dash(self.parent_id_tag.as_ref()))
            .line("created", shown(self.created_at))
            .line("updated", shown(self.updated_at))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_id_tag_has_the_keys_of_rest() {
        let tag = IdTag {
            id_tag: "Rfid_1".into(),
            status: "Blocked".into(),
            expiry_date: Some(prost_types::Timestamp {
                seconds: 1_776_170_096,
                nanos: 0,
            }),
            parent_id_tag: None,
            created_at: None,
            updated_at: None,
        };
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

//! What came of retries that were sent before they were due.

use pipelet_proto::v1;
use serde::Serialize;

use crate::words::counted;

#[derive(Debug, Serialize)]
pub(crate) struct Retried {
    webhook_id: u64,
    /// How many waited.
    retrying: u64,
    /// Whether what follows is all.
    pub(crate) ended: bool,
    delivered: u64,
    pub(crate) failed: u64,
}

impl Retried {
    pub(crate) const fn new(webhook_id: u64, wire: &v1::RetryDeliveriesResponse) -> Self {
        Self {
            webhook_id,
            retrying: wire.retrying,
            ended: wire.ended,
            delivered: wire.delivered,
            failed: wire.failed,
        }
    }

    pub(crate) fn sentence(&self) -> String {
        let Self {
            retrying,
            delivered,
            failed,
            ..
        } = *self;
        let waited = counted(retrying, "delivery that waited", "deliveries that waited");
        match (retrying, self.ended, failed) {
            (0, ..) => "nothing waits for a retry".to_owned(),
            (_, false, _) => format!("sending {waited}, up to the first failure"),
            (_, true, 0) => format!("delivered {delivered} of {waited}"),
            (_, true, failed) => format!(
                "delivered {delivered} of {waited}; {failed} failed, so the rest waits as it did"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_how_it_ended() {
        for (retrying, ended, delivered, failed, said) in [
            (0, true, 0, 0, "nothing waits for a retry"),
            (
                2,
                false,
                0,
                0,
                "sending 2 deliveries that waited, up to the first failure",
            ),
            (1, true, 1, 0, "delivered 1 of 1 delivery that waited"),
            (
                9,
                true,
                2,
                1,
                "delivered 2 of 9 deliveries that waited; 1 failed, so the rest waits as it did",
            ),
        ] {
            let wire = v1::RetryDeliveriesResponse {
                retrying,
                ended,
                delivered,
                failed,
            };
            assert_eq!(Retried::new(7, &wire).sentence(), said);
        }
    }
}

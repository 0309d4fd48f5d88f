//! Dead letters, counted by what they have in common.

use std::{cmp::Reverse, collections::BTreeMap};

use pipelet_proto::v1;
use serde::Serialize;

use super::selection::PAGE;
use crate::{
    cli::{GroupBy, Limit},
    client::{Client, paging::Pages},
    error::{Error, ExitStatus},
    output::{Printer, Row},
    view::Time,
    words::or_dash,
};

/// Dead letters that have this in common.
#[derive(Debug, Default, Serialize)]
struct DeadLetterGroup {
    group: String,
    count: u64,
    /// When the first and the last one of their events happened.
    oldest: Option<Time>,
    latest: Option<Time>,
}

impl Row for DeadLetterGroup {
    const HEADERS: &'static [&'static str] = &["GROUP", "COUNT", "OLDEST", "LATEST"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.group.clone(),
            self.count.to_string(),
            or_dash(self.oldest),
            or_dash(self.latest),
        ]
    }
}

/// The largest first.
pub(super) async fn list(
    what: GroupBy,
    filter: v1::FailedDeliveryFilter,
    limit: Limit,
    client: &Client,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    let mut groups: BTreeMap<String, DeadLetterGroup> = BTreeMap::new();
    let mut pages = Pages::new(None).with_page_size(PAGE);
    while let Some(failed) = client.next_dead_letters(&filter, &mut pages).await? {
        for failed in failed {
            let group = groups.entry(group(what, &failed)).or_default();
            let time = Time::from_wire(failed.timestamp);
            group.count += 1;
            group.oldest = group.oldest.into_iter().chain(time).min();
            group.latest = group.latest.max(time);
        }
    }
    let named = groups.into_iter();
    let named = named.map(|(group, counted)| DeadLetterGroup { group, ..counted });
    let mut groups: Vec<_> = named.collect();
    groups.sort_by_key(|group| Reverse(group.count));
    let mut list = printer.list("no dead letters");
    let most = limit.count(printer.is_on_a_terminal()).unwrap_or(u64::MAX);
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let has_more = groups.len() > most;
    list.extend(groups.into_iter().take(most))?;
    list.finish(printer, has_more)?;
    Ok(ExitStatus::Success)
}

fn group(what: GroupBy, failed: &v1::FailedDelivery) -> String {
    let group = match what {
        // One that was given up before its first attempt has a reason instead.
        GroupBy::Code => {
            let last = failed.attempts.last();
            let code = last.and_then(|attempt| attempt.code.as_ref());
            code.unwrap_or(&failed.reason)
        }
        GroupBy::Webhook => return failed.webhook_id.to_string(),
        GroupBy::Event => &failed.event,
        GroupBy::Station => &failed.station_id,
    };
    group.clone()
}

//! `webhooks backfill`: events of the journal, sent to one webhook again.
//!
//! Invariant: nothing is sent before it was said how much it is, and never more at once than leaves
//! the webhook room for what is new.

use std::time::Duration;

use indicatif::ProgressBar;
use jiff::Timestamp;
use pipelet_proto::v1;
use serde::Serialize;
use tokio::time::sleep;

use crate::{
    cli::Backfill,
    client::Client,
    error::{Error, ExitStatus},
    output::Printer,
    system::when,
    words::counted,
};

/// With more than so many waiting for their attempt, the webhook is left alone.
const MOST_WAITING: u64 = 1000;
/// How often it is asked then.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

#[derive(Debug, Serialize)]
struct Done {
    webhook_id: u64,
    dry_run: bool,
    events: u64,
}

pub(crate) async fn run(
    args: Backfill,
    client: &Client,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    let now = when::now();
    let webhook_id = client.webhook_id(&args.id).await?;
    let mut request = v1::BackfillRequest {
        webhook_id,
        filter: Some(v1::EventFilter {
            events: args.events,
            station_ids: args.stations,
            since: Some(when::on_wire(args.since.resolve(now))),
            until: args.until.map(|until| when::on_wire(until.resolve(now))),
        }),
        dry_run: true,
        ..v1::BackfillRequest::default()
    };
    let mut done = Done {
        webhook_id,
        dry_run: args.dry_run,
        events: 0,
    };
    walk(request.clone(), client, |part| done.events += part.matched).await?;
    let events = counted(done.events, "event", "events");
    if args.dry_run || done.events == 0 {
        printer.done(&done, &format!("{events} would be sent"))?;
        return Ok(ExitStatus::Success);
    }
    if !args.assume.yes {
        let question = format!("send {events} to webhook {webhook_id}?");
        if !printer.confirm(&question).await? {
            return Ok(ExitStatus::Failed);
        }
    }
    request.dry_run = false;
    let mut under_way = UnderWay {
        printer,
        bar: printer.progress("sending"),
        sent: 0,
        reached: None,
        ended: false,
    };
    under_way.bar.set_length(done.events);
    walk(request, client, |part| under_way.take(part)).await?;
    under_way.ended = true;
    done.events = under_way.sent;
    drop(under_way);
    let events = counted(
        done.events,
        "event is on its way",
        "events are on their way",
    );
    let id = webhook_id;
    printer.done(&done, &format!("{events} to webhook {id}"))?;
    printer.hint(&format!(
        "`pipeletctl deliveries list --status pending --webhook {id}` shows what still waits"
    ));
    Ok(ExitStatus::Success)
}

/// What was sent so far; where it breaks off, it tells how to go on.
struct UnderWay<'a> {
    printer: &'a Printer,
    bar: ProgressBar,
    sent: u64,
    reached: Option<Timestamp>,
    ended: bool,
}

impl UnderWay<'_> {
    fn take(&mut self, part: &v1::BackfillResponse) {
        self.sent += part.matched;
        self.bar.set_position(self.sent);
        let reached = part.reached;
        let reached = reached.and_then(|at| Timestamp::new(at.seconds, at.nanos).ok());
        self.reached = reached.or(self.reached);
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // What is said is not to be drawn over.
        self.bar.finish_and_clear();
        let events = counted(self.sent, "event is on its way", "events are on their way");
        self.printer.note(&format!("broken off: {events}"));
        if let Some(reached) = self.reached {
            self.printer
                .hint(&format!("go on with --since {reached:.3}"));
        }
    }
}

/// Goes through all parts, and shows each.
async fn walk(
    mut request: v1::BackfillRequest,
    client: &Client,
    mut see: impl FnMut(&v1::BackfillResponse),
) -> Result<(), Error> {
    loop {
        let part = client.events().backfill(request.clone()).await?;
        let part = part.into_inner();
        see(&part);
        if part.left.is_empty() {
            return Ok(());
        }
        request.left = part.left;
        let mut waiting = part.retrying;
        while !request.dry_run && waiting > MOST_WAITING {
            sleep(LOOK_AGAIN).await;
            let webhook = v1::GetWebhookRequest {
                id: request.webhook_id,
            };
            let webhook = client.webhooks().get_webhook(webhook).await?.into_inner();
            let stats = webhook.webhook.and_then(|webhook| webhook.stats);
            waiting = stats.map_or(0, |stats| stats.retrying);
        }
    }
}

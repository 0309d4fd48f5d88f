//! `deliveries`: what is owed, what failed and what was delivered, over all webhooks.

use clap::ValueEnum as _;
use jiff::Timestamp;
use pipelet_proto::v1;

use crate::{
    cli::{Deliveries, DeliveryStatus, Filter},
    client::{Client, paging::Pages},
    commands::dlq,
    error::{Error, ExitStatus},
    output::{List, Printer},
    system::when,
    view::ListedDelivery,
    words::counted,
};

/// Payloads of dead letters may be large, so a page holds few.
const PAGE: u32 = 50;

/// What the list may still take.
struct Room {
    left: u64,
    /// Whether there was more.
    is_exceeded: bool,
}

impl Room {
    const fn take(&mut self) -> bool {
        match self.left.checked_sub(1) {
            Some(left) => self.left = left,
            None => self.is_exceeded = true,
        }
        !self.is_exceeded
    }
}

pub(crate) async fn run(
    verb: Deliveries,
    client: &Client,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    let Deliveries::List {
        status,
        filter,
        limit,
    } = verb;
    let statuses: &[DeliveryStatus] = match &status {
        Some(status) => std::slice::from_ref(status),
        None => DeliveryStatus::value_variants(),
    };
    let mut list = printer.list::<ListedDelivery>("no such deliveries");
    let mut room = Room {
        left: limit.count(printer.is_on_a_terminal()).unwrap_or(u64::MAX),
        is_exceeded: false,
    };
    for status in statuses {
        match status {
            DeliveryStatus::Failed => failed(&filter, &mut room, &mut list, client).await?,
            DeliveryStatus::Pending => {
                for owed in of_webhooks("pending", &filter, &mut room, &mut list, client).await? {
                    printer.note(&owed);
                }
            }
            DeliveryStatus::Delivered => {
                of_webhooks("delivered", &filter, &mut room, &mut list, client).await?;
            }
        }
    }
    list.finish(printer, room.is_exceeded)?;
    Ok(ExitStatus::Success)
}

async fn failed(
    filter: &Filter,
    room: &mut Room,
    list: &mut List<ListedDelivery, std::io::Stdout>,
    client: &Client,
) -> Result<(), Error> {
    let filter = dlq::filter_on_wire(filter.clone(), when::now(), client).await?;
    let mut pages = Pages::new(Some(room.left.saturating_add(1))).with_page_size(PAGE);
    while let Some(failed) = client.next_dead_letters(&filter, &mut pages).await? {
        for letter in failed {
            if room.take() {
                list.push(&letter.into())?;
            }
        }
    }
    Ok(())
}

/// One webhook after the other. Returns what they owe beyond the list, in words.
async fn of_webhooks(
    status: &str,
    filter: &Filter,
    room: &mut Room,
    list: &mut List<ListedDelivery, std::io::Stdout>,
    client: &Client,
) -> Result<Vec<String>, Error> {
    let now = when::now();
    let since = filter.since.map(|when| when.resolve(now));
    let until = filter.until.map(|when| when.resolve(now));
    let mut owed = Vec::new();
    let only = client.webhook_id_if(filter.webhook.as_ref()).await?;
    for webhook in webhooks(only, client).await? {
        let books = webhook.stats.unwrap_or_default();
        let unattempted = books.pending.saturating_sub(books.retrying);
        if unattempted > 0 {
            let deliveries = counted(unattempted, "delivery", "deliveries");
            owed.push(format!(
                "webhook {}: {deliveries} not attempted yet, or under way",
                webhook.id
            ));
        }
        let mut pages = Pages::new(None);
        while !room.is_exceeded
            && let Some(page) = pages.next()
        {
            let request = v1::ListDeliveriesRequest {
                webhook_id: webhook.id,
                page_size: page.size,
                page_token: page.token,
                status: status.to_owned(),
            };
            let mut service = client.webhooks();
            let answer = service.list_deliveries(request).await?.into_inner();
            for wire in pages.accept(answer.deliveries, answer.next_page_token) {
                let delivery = ListedDelivery::of_webhook(webhook.id, wire);
                if wanted(&delivery, filter, since, until) && room.take() {
                    list.push(&delivery)?;
                }
            }
        }
    }
    Ok(owed)
}

fn wanted(
    delivery: &ListedDelivery,
    filter: &Filter,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
) -> bool {
    delivery.is_of(filter.event.as_deref(), filter.station.as_deref())
        && delivery.is_within(since, until)
}

/// The one that is named, or all.
async fn webhooks(only: Option<u64>, client: &Client) -> Result<Vec<v1::Webhook>, Error> {
    if let Some(id) = only {
        let request = v1::GetWebhookRequest { id };
        let answer = client.webhooks().get_webhook(request).await?.into_inner();
        return Ok(vec![answer.webhook.ok_or(Error::Incomplete("webhook"))?]);
    }
    let mut webhooks = Vec::new();
    let mut pages = Pages::new(None);
    while let Some(page) = client.next_webhooks(&mut pages).await? {
        webhooks.extend(page);
    }
    Ok(webhooks)
}

//! `top`: the daemon at a glance, again and again.
//!
//! Asks once a second, and draws what changed. A daemon that goes away is said to be gone, and the
//! screen goes on when it is back. Changes are asked for twice.

mod board;
mod picture;

use std::time::Duration;

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use pipelet_proto::v1;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tonic::{Code, Status};

use self::board::{Board, Told, Wish};
use crate::{
    client::Client,
    commands::dlq::ReplayOutcome,
    error::{Error, ExitStatus},
    overview::Overview,
    settings::Settings,
    system::screen::{self, Input, Screen},
    view::Retried,
};

const EVERY: Duration = Duration::from_secs(1);
/// What an answer may take before the screen goes on without it.
const PATIENCE: Duration = Duration::from_secs(5);
/// Of a webhook's deliveries, how many are shown.
const DELIVERIES: u32 = 10;

pub(crate) async fn run(settings: &Settings, client: &Client) -> Result<ExitStatus, Error> {
    if !Screen::is_possible() {
        return Err(Error::NoTerminal);
    }
    let mut board = Board::new(settings.to_string());
    // What is wrong from the beginning on is told as any command tells it.
    board.look(overview(client).await?);
    let mut screen = Screen::open()?;
    let mut wishes = FuturesUnordered::new();
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        screen.draw(|frame| picture::draw(frame, &board))?;
        tokio::select! {
            _ = ticks.tick() => match timeout(PATIENCE, overview(client)).await {
                Ok(Ok(seen)) => {
                    board.look(seen);
                    wishes.extend(board.watched().map(|wish| fulfil(wish, client)));
                }
                Ok(Err(status)) if is_refused(&status) => return Err(status.into()),
                Ok(Err(status)) => board.lost(status.message()),
                Err(_elapsed) => board.lost("it does not answer"),
            },
            input = screen.input() => match input? {
                Input::Key(key) if screen::ends(key) && !board.is_asking() => {
                    return Ok(ExitStatus::Success);
                }
                Input::Key(key) => {
                    wishes.extend(board.pressed(key.code).map(|wish| fulfil(wish, client)));
                }
                Input::Resized => {}
            },
            Some(told) = wishes.next() => board.told(told),
        }
    }
}

async fn overview(client: &Client) -> Result<Overview, Status> {
    let mut daemon = client.daemon();
    let answer = daemon.get_overview(v1::GetOverviewRequest {}).await?;
    Ok(answer.into_inner().into())
}

/// Whether no later call will fare better.
fn is_refused(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unauthenticated | Code::PermissionDenied | Code::Unimplemented
    )
}

async fn fulfil(wish: Wish, client: &Client) -> Result<Told, String> {
    let told = match wish {
        Wish::Look(id) => match timeout(PATIENCE, look(id, client)).await {
            Ok(told) => told,
            Err(_elapsed) => return Err("it does not answer".to_owned()),
        },
        Wish::Switch { id, enabled } => switch(id, enabled, client).await,
        Wish::Replay(id) => replay(id, client).await,
        Wish::Retry(id) => retry(id, client).await,
    };
    told.map_err(|status| status.message().to_owned())
}

async fn look(id: u64, client: &Client) -> Result<Told, Status> {
    let request = v1::ListDeliveriesRequest {
        webhook_id: id,
        page_size: DELIVERIES,
        ..v1::ListDeliveriesRequest::default()
    };
    let answer = client.webhooks().list_deliveries(request).await?;
    let mut deliveries = answer.into_inner().deliveries;
    deliveries.truncate(DELIVERIES as usize);
    Ok(Told::Deliveries(id, deliveries))
}

async fn switch(id: u64, enabled: bool, client: &Client) -> Result<Told, Status> {
    let request = v1::UpdateWebhookRequest {
        id,
        webhook: Some(v1::WebhookSpec {
            enabled: Some(enabled),
            ..v1::WebhookSpec::default()
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["enabled".to_owned()],
        }),
    };
    client.webhooks().update_webhook(request).await?;
    let what = if enabled { "enabled" } else { "disabled" };
    Ok(Told::Sentence(format!("webhook {id} is {what}")))
}

async fn retry(id: u64, client: &Client) -> Result<Told, Status> {
    let request = v1::RetryDeliveriesRequest { id, wait: None };
    let answer = client.webhooks().retry_deliveries(request).await?;
    let retried = Retried::new(id, &answer.into_inner()).sentence();
    Ok(Told::Sentence(format!("webhook {id}: {retried}")))
}

async fn replay(id: u64, client: &Client) -> Result<Told, Status> {
    let filter = v1::FailedDeliveryFilter {
        webhook_id: Some(id),
        ..v1::FailedDeliveryFilter::default()
    };
    let request = v1::ReplayRequest {
        which: Some(v1::replay_request::Which::Filter(filter)),
    };
    let stream = client.failed_deliveries().replay(request).await?;
    let mut stream = stream.into_inner();
    while let Some(message) = stream.message().await? {
        if message.done {
            let outcome = ReplayOutcome::new(&message, None).sentence();
            return Ok(Told::Sentence(format!("webhook {id}: {outcome}")));
        }
    }
    Err(Status::unavailable(
        "the daemon ended before the replay did",
    ))
}

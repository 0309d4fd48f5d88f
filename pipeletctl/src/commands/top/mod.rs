//! `top`: the daemon at a glance, again and again.
//!
//! Polls once a second, and draws what changed. A daemon that goes away is shown as gone, and the
//! screen goes on when it is back. Whatever changes something asks for a confirmation.

mod app;
mod ui;

use std::time::Duration;

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use pipelet_proto::v1;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tonic::{Code, Status};

use self::app::{Action, App, Response};
use crate::{
    client::Client,
    commands::dlq::ReplayOutcome,
    error::{Error, ExitStatus},
    overview::Overview,
    settings::Settings,
    system::screen::{self, Input, Screen},
    view::Retried,
};

const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// What an answer may take before the screen goes on without it.
const POLL_TIMEOUT: Duration = Duration::from_secs(5);
/// Of a webhook's deliveries, how many are shown.
const DELIVERIES: u32 = 10;

pub(crate) async fn run(settings: &Settings, client: &Client) -> Result<ExitStatus, Error> {
    if !Screen::is_available() {
        return Err(Error::NoTerminal);
    }
    let mut app = App::new(settings.to_string());
    // The first failure ends the command with a report, as it does every other.
    app.update(overview(client).await?);
    let mut screen = Screen::open()?;
    let mut actions = FuturesUnordered::new();
    let mut ticks = interval(POLL_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        screen.draw(|frame| ui::draw(frame, &app))?;
        tokio::select! {
            _ = ticks.tick() => match timeout(POLL_TIMEOUT, overview(client)).await {
                Ok(Ok(seen)) => {
                    app.update(seen);
                    actions.extend(app.refresh().map(|action| perform(action, client)));
                }
                Ok(Err(status)) if is_refused(&status) => return Err(status.into()),
                Ok(Err(status)) => app.set_unreachable(status.message()),
                Err(_elapsed) => app.set_unreachable("it does not answer"),
            },
            input = screen.input() => match input? {
                Input::Key(key) if screen::is_quit(key) && !app.is_confirming() => {
                    return Ok(ExitStatus::Success);
                }
                Input::Key(key) => {
                    actions.extend(app.handle_key(key.code).map(|action| perform(action, client)));
                }
                Input::Resized => {}
            },
            Some(response) = actions.next() => app.handle_response(response),
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

async fn perform(action: Action, client: &Client) -> Result<Response, String> {
    let response = match action {
        Action::ListDeliveries(id) => {
            match timeout(POLL_TIMEOUT, list_deliveries(id, client)).await {
                Ok(response) => response,
                Err(_elapsed) => return Err("it does not answer".to_owned()),
            }
        }
        Action::SetEnabled { id, enabled } => set_enabled(id, enabled, client).await,
        Action::Replay(id) => replay(id, client).await,
        Action::Retry(id) => retry(id, client).await,
    };
    response.map_err(|status| status.message().to_owned())
}

async fn list_deliveries(id: u64, client: &Client) -> Result<Response, Status> {
    let request = v1::ListDeliveriesRequest {
        webhook_id: id,
        page_size: DELIVERIES,
        ..v1::ListDeliveriesRequest::default()
    };
    let answer = client.webhooks().list_deliveries(request).await?;
    let mut deliveries = answer.into_inner().deliveries;
    deliveries.truncate(DELIVERIES as usize);
    Ok(Response::Deliveries(id, deliveries))
}

async fn set_enabled(id: u64, enabled: bool, client: &Client) -> Result<Response, Status> {
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
    Ok(Response::Message(format!("webhook {id} is {what}")))
}

async fn retry(id: u64, client: &Client) -> Result<Response, Status> {
    let request = v1::RetryDeliveriesRequest { id, wait: None };
    let answer = client.webhooks().retry_deliveries(request).await?;
    let retried = Retried::new(id, &answer.into_inner()).sentence();
    Ok(Response::Message(format!("webhook {id}: {retried}")))
}

async fn replay(id: u64, client: &Client) -> Result<Response, Status> {
    let filter = v1::FailedDeliveryFilter {
        webhook_id: Some(id),
        ..v1::FailedDeliveryFilter::default()
    };
    let request = v1::ReplayRequest {
        which: Some(v1::replay_request::Which::Filter(filter)),
        unwatched: false,
    };
    let stream = client.failed_deliveries().replay(request).await?;
    let mut stream = stream.into_inner();
    while let Some(message) = stream.message().await? {
        if message.done {
            let outcome = ReplayOutcome::new(&message, None).sentence();
            return Ok(Response::Message(format!("webhook {id}: {outcome}")));
        }
    }
    Err(Status::unavailable(
        "the daemon ended before the replay did",
    ))
}

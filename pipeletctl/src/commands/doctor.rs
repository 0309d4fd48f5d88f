//! `doctor`: gathers what a colleague would look at, and has it judged.
//!
//! Invariant: nothing is changed, and the calls are bounded however many webhooks there are. What
//! the facts mean is `view::doctor`'s to say.

use pipelet_proto::v1;

use crate::{
    client::Client,
    error::{Error, ExitStatus, Report},
    output::{Format, Printer},
    settings::Settings,
    system::when::now,
    table::Reader,
    view::{
        self,
        doctor::{Facts, Finding, Hook, judge, unanswered},
    },
};

/// Webhooks that are looked at.
const WEBHOOKS: u32 = 200;
/// Of these, webhooks whose last failure is asked for.
const FAILING: usize = 20;

pub(crate) async fn run(
    settings: &Settings,
    client: &Client,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    // Of what a node knows by itself, before what only the owners of shards can tell.
    let cluster = cluster(client).await;
    let (findings, reached) = match gather(settings, client, cluster.clone()).await {
        Ok(facts) => (judge(&facts), true),
        Err(error) => {
            let report = Report::of(&error, settings, None);
            let reached = report.status != ExitStatus::Unreachable;
            let has_key = settings.key.value.is_some();
            let findings = unanswered(&report, reached, has_key, cluster.as_ref());
            (findings, reached)
        }
    };
    let width = match Reader::of_stdout() {
        Reader::Terminal(width) => width,
        Reader::Pipe => usize::MAX,
    };
    let healthy = !findings.iter().any(Finding::is_problem);
    match printer.format() {
        Format::Table | Format::Jsonl => findings.iter().try_for_each(|finding| {
            let (mark, style) = finding.mark();
            printer.follow_styled(finding, style, mark, &finding.lines(width))
        })?,
        Format::Json | Format::Yaml => printer.either(&findings, "")?,
    }
    Ok(match (reached, healthy) {
        (false, _) => ExitStatus::Unreachable,
        (true, false) => ExitStatus::Failed,
        (true, true) => ExitStatus::Success,
    })
}

/// None where the daemon is no node of one, or does not answer, which other calls tell.
async fn cluster(client: &Client) -> Option<v1::GetClusterResponse> {
    let asked = v1::GetClusterRequest {};
    let answer = client.cluster().get_cluster(asked).await;
    answer.ok().map(tonic::Response::into_inner)
}

async fn gather(
    settings: &Settings,
    client: &Client,
    cluster: Option<v1::GetClusterResponse>,
) -> Result<Facts, Error> {
    let asked = now();
    let status = client.daemon().get_status(v1::GetStatusRequest {}).await?;
    let answered = now();
    let request = v1::AuditWebhooksRequest::default();
    let audited = client.webhooks().audit_webhooks(request).await?;
    let audit = view::Audit::new(audited.into_inner(), None);
    let request = v1::ListWebhooksRequest {
        page_size: WEBHOOKS,
        page_token: String::new(),
    };
    let listed = client.webhooks().list_webhooks(request).await?.into_inner();
    let mut webhooks = Vec::new();
    let mut asks = 0;
    for webhook in listed.webhooks {
        let mut hook = Hook::new(webhook);
        if let Some(status) = hook.status_of_failures().filter(|_| asks < FAILING) {
            asks += 1;
            hook.last_failure = last_attempt(hook.webhook.id, status, client).await?;
        }
        webhooks.push(hook);
    }
    Ok(Facts {
        server: settings.to_string(),
        status: status.into_inner(),
        asked,
        answered,
        webhooks,
        more_webhooks: !listed.next_page_token.is_empty(),
        gaps: audit.gaps().collect(),
        cluster,
    })
}

/// The last attempt of the first delivery with this status. A webhook that was deleted meanwhile has none.
async fn last_attempt(
    webhook_id: u64,
    status: &str,
    client: &Client,
) -> Result<Option<v1::Attempt>, Error> {
    let request = v1::ListDeliveriesRequest {
        webhook_id,
        page_size: 1,
        page_token: String::new(),
        status: status.to_owned(),
    };
    match client.webhooks().list_deliveries(request).await {
        Ok(answer) => {
            let first = answer.into_inner().deliveries.into_iter().next();
            Ok(first.and_then(|delivery| delivery.attempts.into_iter().last()))
        }
        Err(status) if status.code() == tonic::Code::NotFound => Ok(None),
        Err(status) => Err(status.into()),
    }
}

//! A webhook's settings: as flags, as a request, and as people see them.
//!
//! A new setting is added here, and nowhere else in the tool.

#![expect(
    clippy::doc_markdown,
    reason = "the comments are the help text, where backticks would show"
)]

use std::path::PathBuf;

use clap::{ArgGroup, Args, ValueHint};
use pipelet_proto::v1::{self, Webhook};

use super::{candidates::Candidates, named::Named};
use crate::{
    system::secret::{Secret, SecretError},
    table::Details,
    words::yes_no,
};

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("secret").args(["secret_value", "secret_value_file"])))]
pub(crate) struct CreateWebhook {
    /// A name for people
    #[arg(long)]
    name: String,
    /// What it is for, in free text
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Where events are POSTed
    #[arg(long, value_hint = ValueHint::Url)]
    url: String,
    /// An event type, a group like "group:security", or "*" for all (repeat it, or separate by
    /// commas)
    #[arg(
        long = "event",
        required = true,
        value_name = "EVENT",
        value_delimiter = ',',
        add = Candidates::EventTypes
    )]
    events: Vec<String>,
    /// Only events of this station, or of all that a pattern like "WALLBOX_*" means (repeat it)
    #[arg(long = "station", value_name = "STATION", add = Candidates::Stations)]
    stations: Vec<String>,
    /// The header that carries the secret
    #[arg(long, value_name = "HEADER", requires = "secret")]
    secret_header: Option<String>,
    /// The secret; a file keeps it out of the process list
    #[arg(
        long,
        value_name = "VALUE",
        requires = "secret_header",
        allow_hyphen_values = true
    )]
    secret_value: Option<Secret>,
    /// A file with the secret, or "-" for standard input
    #[arg(
        long,
        value_name = "FILE",
        requires = "secret_header",
        value_hint = ValueHint::FilePath
    )]
    secret_value_file: Option<PathBuf>,
    #[command(flatten)]
    signing: Signatures,
    /// Don't send events yet
    #[arg(long)]
    disabled: bool,
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("secret").args(["secret_value", "secret_value_file"])))]
pub(crate) struct UpdateWebhook {
    /// Its id or its name
    #[arg(value_name = "WEBHOOK", add = Candidates::Webhooks)]
    pub(crate) id: Named,
    /// A name for people
    #[arg(long)]
    name: Option<String>,
    /// What it is for, in free text; an empty one removes it
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Where events are POSTed
    #[arg(long, value_hint = ValueHint::Url)]
    url: Option<String>,
    /// The event types that replace the old ones (repeat it, or separate by commas)
    #[arg(long = "event", value_name = "EVENT", value_delimiter = ',', add = Candidates::EventTypes)]
    events: Vec<String>,
    /// The stations that replace the old ones (repeat it)
    #[arg(long = "station", value_name = "STATION", add = Candidates::Stations)]
    stations: Vec<String>,
    /// Send the events of all stations again
    #[arg(long, conflicts_with = "stations")]
    all_stations: bool,
    /// The header that carries the secret
    #[arg(long, value_name = "HEADER")]
    secret_header: Option<String>,
    /// The secret; a file keeps it out of the process list
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
    secret_value: Option<Secret>,
    /// A file with the secret, or "-" for standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    secret_value_file: Option<PathBuf>,
    /// Send no secret any more
    #[arg(long, conflicts_with_all = ["secret_header", "secret"])]
    clear_secret: bool,
    #[command(flatten)]
    signing: Signatures,
    /// Sign no more
    #[arg(long, conflicts_with_all = ["sign", "signing_secret", "signing_secret_file"])]
    clear_signing_secret: bool,
    /// Let new events in
    #[arg(long, conflicts_with = "disabled")]
    enabled: bool,
    /// Keep new events out
    #[arg(long)]
    disabled: bool,
}

/// How deliveries are signed (Standard Webhooks).
#[derive(Debug, Args)]
pub(crate) struct Signatures {
    /// Sign deliveries, with a secret that is made and shown this once
    #[arg(long, conflicts_with_all = ["signing_secret", "signing_secret_file"])]
    sign: bool,
    /// Sign deliveries with this secret: whsec_ and 24 to 64 bytes in base64
    #[arg(long, value_name = "SECRET", conflicts_with = "signing_secret_file")]
    signing_secret: Option<Secret>,
    /// A file with it, or "-" for standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    signing_secret_file: Option<PathBuf>,
}

impl CreateWebhook {
    pub(crate) fn spec(self) -> Result<v1::WebhookSpec, SecretError> {
        let generate_signing_secret = self.signing.sign;
        Ok(v1::WebhookSpec {
            name: self.name,
            description: self.description,
            url: self.url,
            enabled: Some(!self.disabled),
            events: self.events,
            station_ids: self.stations,
            secret_header: self.secret_header,
            secret_value: Secret::given(self.secret_value, self.secret_value_file)?
                .map(Secret::into_text),
            signing_secret: signing_secret(self.signing)?,
            generate_signing_secret,
        })
    }
}

impl UpdateWebhook {
    /// The request that changes what was given, which the mask names; none where nothing was.
    ///
    /// `id` is the webhook's.
    pub(crate) fn change(self, id: u64) -> Result<Option<v1::UpdateWebhookRequest>, SecretError> {
        let secret = Secret::given(self.secret_value, self.secret_value_file)?;
        let generate_signing_secret = self.signing.sign;
        let signing_secret = signing_secret(self.signing)?;
        let enabled = match (self.enabled, self.disabled) {
            (true, _) => Some(true),
            (false, true) => Some(false),
            (false, false) => None,
        };
        let paths = [
            ("name", self.name.is_some()),
            ("description", self.description.is_some()),
            ("url", self.url.is_some()),
            ("enabled", enabled.is_some()),
            ("events", !self.events.is_empty()),
            (
                "station_ids",
                !self.stations.is_empty() || self.all_stations,
            ),
            (
                "secret_header",
                self.secret_header.is_some() || self.clear_secret,
            ),
            ("secret_value", secret.is_some() || self.clear_secret),
            (
                "signing_secret",
                signing_secret.is_some() || generate_signing_secret || self.clear_signing_secret,
            ),
        ]
        .into_iter()
        .filter_map(|(path, given)| given.then_some(path));
        let mask = mask(paths);
        if mask.paths.is_empty() {
            return Ok(None);
        }
        Ok(Some(v1::UpdateWebhookRequest {
            id,
            webhook: Some(v1::WebhookSpec {
                name: self.name.unwrap_or_default(),
                description: self.description,
                url: self.url.unwrap_or_default(),
                enabled,
                events: self.events,
                station_ids: self.stations,
                secret_header: self.secret_header,
                secret_value: secret.map(Secret::into_text),
                signing_secret,
                generate_signing_secret,
            }),
            update_mask: Some(mask),
        }))
    }
}

pub(crate) fn mask(paths: impl IntoIterator<Item = &'static str>) -> prost_types::FieldMask {
    prost_types::FieldMask {
        paths: paths.into_iter().map(str::to_owned).collect(),
    }
}

fn signing_secret(signing: Signatures) -> Result<Option<String>, SecretError> {
    let given = Secret::given(signing.signing_secret, signing.signing_secret_file)?;
    Ok(given.map(Secret::into_text))
}

/// What was set of a webhook, and its id.
pub(crate) fn settings(webhook: &Webhook) -> Details {
    let secret = match (&webhook.secret_header, webhook.has_secret) {
        (Some(header), true) => format!("sent as {header}"),
        (_, true) => "set".to_owned(),
        (_, false) => "none".to_owned(),
    };
    let stations = match webhook.station_ids.as_slice() {
        [] => "all".to_owned(),
        some => some.join(", "),
    };
    let details = Details::default()
        .line("id", webhook.id.to_string())
        .line("name", &webhook.name);
    let details = match &webhook.description {
        Some(description) => details.line("description", description),
        None => details,
    };
    details
        .line("url", &webhook.url)
        .line("enabled", yes_no(webhook.enabled))
        .line("events", webhook.events.join(", "))
        .line("stations", stations)
        .line("secret", secret)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command, Webhooks};

    fn changed(line: &str) -> Option<v1::UpdateWebhookRequest> {
        let words = ["pipeletctl", "webhooks", "update", "7"].into_iter();
        let cli = Cli::try_parse_from(words.chain(line.split_whitespace())).unwrap();
        let Command::Webhooks(Webhooks::Update(args)) = cli.command else {
            panic!("{line} is an update");
        };
        args.change(7).unwrap()
    }

    #[test]
    fn the_mask_names_what_was_given() {
        for (line, paths) in [
            ("--name N", vec!["name"]),
            ("--event A,B --disabled", vec!["enabled", "events"]),
            ("--enabled --url http://h", vec!["url", "enabled"]),
            ("--station A --station B*", vec!["station_ids"]),
            ("--all-stations", vec!["station_ids"]),
            ("--secret-value V", vec!["secret_value"]),
            ("--clear-secret", vec!["secret_header", "secret_value"]),
        ] {
            let request = changed(line).unwrap();
            assert_eq!(request.update_mask.unwrap().paths, paths, "{line}");
        }
    }

    #[test]
    fn a_cleared_secret_is_named_and_absent() {
        let webhook = changed("--clear-secret").unwrap().webhook.unwrap();
        assert_eq!((webhook.secret_header, webhook.secret_value), (None, None));
    }

    #[test]
    fn an_update_of_nothing_is_no_request() {
        assert!(changed("").is_none());
    }
}

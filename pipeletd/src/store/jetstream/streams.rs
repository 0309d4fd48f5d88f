//! The cluster's streams: made on first use, and looked at with every start.

use async_nats::jetstream::{
    Context, ErrorCode,
    context::{CreateStreamErrorKind, GetStreamErrorKind},
    stream::{Config, DiscardPolicy, RetentionPolicy, StorageType, Stream},
};

use super::{ClusterError, record_stream::failed, refused};
use crate::store::StoreError;

/// So many servers have each message, where there are as many and nothing else is said.
const REPLICAS: usize = 3;

/// How a stream of the cluster is set up.
pub(super) fn config_of(name: &str, subject: &str, max_messages_per_subject: i64) -> Config {
    Config {
        name: name.to_owned(),
        subjects: vec![subject.to_owned()],
        max_messages_per_subject,
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::New,
        storage: StorageType::File,
        max_bytes: -1,
        max_messages: -1,
        max_consumers: -1,
        max_message_size: -1,
        allow_direct: true,
        ..Config::default()
    }
}

/// The stream, and how many replicas it has. One that isn't there is made.
pub(super) async fn have(
    jetstream: &Context,
    mut config: Config,
    replicas: Option<usize>,
) -> Result<(Stream<()>, usize), StoreError> {
    let name = config.name.clone();
    let found = match jetstream.get_stream(&name).await {
        Ok(mut found) => {
            let found = found.info().await.map_err(failed)?.config.clone();
            check_stream(&config, &found, replicas)?;
            found.num_replicas
        }
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(why)
                if why.error_code() == ErrorCode::STREAM_NOT_FOUND =>
            {
                make(jetstream, &mut config, replicas).await?
            }
            _ => return Err(failed(error)),
        },
    };
    let stream = jetstream.get_stream_no_info(&name).await.map_err(failed)?;
    Ok((stream, found))
}

/// With as many replicas as are asked for, or else with three, or with one where there is one server.
async fn make(
    jetstream: &Context,
    config: &mut Config,
    replicas: Option<usize>,
) -> Result<usize, StoreError> {
    for wanted in [replicas.unwrap_or(REPLICAS), 1] {
        config.num_replicas = wanted;
        let Err(error) = jetstream.create_stream(&*config).await else {
            tracing::info!(stream = config.name, replicas = wanted, "made a stream");
            return Ok(wanted);
        };
        let CreateStreamErrorKind::JetStream(why) = error.kind() else {
            return Err(failed(error));
        };
        match (why.error_code(), replicas) {
            (ErrorCode::STREAM_REPLICAS_NOT_SUPPORTED, None) if wanted > 1 => {}
            (ErrorCode::STREAM_REPLICAS_NOT_SUPPORTED, Some(replicas)) => {
                return Err(refused(ClusterError::TooFewServers { replicas }));
            }
            // Servers that are still to join are waited for.
            _ => return Err(failed(error)),
        }
    }
    Err(refused(ClusterError::TooFewServers { replicas: 1 }))
}

/// What of a stream was changed that the cluster goes by.
fn check_stream(ours: &Config, found: &Config, replicas: Option<usize>) -> Result<(), StoreError> {
    let changed = |wrong: String| {
        let stream = ours.name.clone();
        Err(refused(ClusterError::StreamChanged { stream, wrong }))
    };
    if found.subjects != ours.subjects {
        return changed(format!("its subjects are {}", found.subjects.join(", ")));
    }
    let limits = |of: &Config| {
        [
            ("max_bytes", of.max_bytes),
            ("max_msgs", of.max_messages),
            ("max_msgs_per_subject", of.max_messages_per_subject),
            ("max_msg_size", of.max_message_size.into()),
            (
                "max_age",
                i64::try_from(of.max_age.as_nanos()).unwrap_or(i64::MAX),
            ),
        ]
    };
    for ((what, theirs), (_, ours)) in limits(found).into_iter().zip(limits(ours)) {
        // No limit is written in several ways.
        if theirs.max(0) != ours.max(0) {
            return changed(format!("its {what} is {theirs}"));
        }
    }
    if found.retention != RetentionPolicy::Limits || found.storage != StorageType::File {
        return changed(format!(
            "its retention is {:?}, and its storage {:?}",
            found.retention, found.storage
        ));
    }
    if !found.allow_direct || found.sealed || found.no_ack {
        let wrong = "allow_direct is off, or it is sealed, or acknowledges nothing";
        return changed(wrong.to_owned());
    }
    if replicas.is_some_and(|replicas| replicas != found.num_replicas) {
        return changed(format!("it has {} replicas", found.num_replicas));
    }
    Ok(())
}

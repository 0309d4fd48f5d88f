//! What can go wrong, how it is reported, and the status that the process ends with.
//!
//! Invariant: failures are distinguished by their type or their gRPC code, never by their text, and
//! every report names a next step where there is one. Printing is `output`'s.

use std::{
    error::Error as StdError,
    fmt::{self, Write as _},
    io,
    path::PathBuf,
    process::ExitCode,
};

use rustls::{AlertDescription, CertificateError};
use tonic::{Code, ConnectError, Status, TimeoutExpired};
use tonic_types::StatusExt as _;

use crate::{
    settings::{ChosenBy, KeySource, Settings, SettingsError, contexts::ContextsError},
    system::secret::SecretError,
    table::printable,
};

/// The exit codes, which scripts rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum ExitStatus {
    Success = 0,
    Failed = 1,
    /// The command line must change: no repetition helps.
    Usage = 2,
    NotFound = 3,
    NotAuthorised = 4,
    Conflict = 5,
    PartlyFailed = 6,
    /// `EX_UNAVAILABLE` of sysexits.h.
    Unreachable = 69,
    /// 128 + SIGINT, as shells have it.
    Interrupted = 130,
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status as u8)
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the daemon refused the call")]
    Call(#[source] Box<Status>),
    /// The daemon left out what the interface promises.
    #[error("the daemon's answer lacks the {0}")]
    Incomplete(&'static str),
    #[error("the daemon ended the stream early")]
    StreamEnded,
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("the header {0:?} can't be sent with that value")]
    Header(String),
    #[error("cannot read the request from {argument}")]
    Body { argument: String, source: io::Error },
    #[error("{} exists already", .0.display())]
    FileExists(PathBuf),
    #[error("cannot write {}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("several have the name {name:?}: say which {what} you mean by its id ({ids})")]
    Ambiguous {
        what: &'static str,
        name: String,
        ids: String,
    },
    #[error("nothing to change")]
    NothingToChange,
    #[error("there is no terminal to draw on")]
    NoTerminal,
    /// With the question.
    #[error("there is no terminal to ask on: {0}")]
    NoTerminalToConfirm(String),
    #[error("cannot write the output")]
    Output(#[from] io::Error),
    #[error("cannot speak TLS with these authorities (--ca-file, or the system's)")]
    Tls(#[source] tonic::transport::Error),
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
    #[error(transparent)]
    Contexts(#[from] ContextsError),
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error("a context needs --server URL")]
    NoServer,
    #[error("the system gives no random bytes")]
    Random(#[source] getrandom::Error),
    #[error("a signing secret is whsec_ and 24 to 64 bytes in base64")]
    SigningSecret,
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self::Call(Box::new(status))
    }
}

/// A failure that only one command knows, which says how the process ends and what to do next.
#[derive(Debug)]
pub(crate) struct CommandError {
    status: ExitStatus,
    hint: Option<&'static str>,
    error: Box<dyn StdError + Send + Sync>,
}

impl CommandError {
    pub(crate) fn new(
        status: ExitStatus,
        hint: Option<&'static str>,
        error: impl StdError + Send + Sync + 'static,
    ) -> Self {
        Self {
            status,
            hint,
            error: Box::new(error),
        }
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl StdError for CommandError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.error.source()
    }
}

impl Error {
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// A failure, ready to be shown.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) status: ExitStatus,
    pub(crate) message: String,
    /// One line each, below the message.
    pub(crate) details: Vec<String>,
    pub(crate) hints: Vec<String>,
}

impl Report {
    /// `when_missing` is what to do where what the command names is not there.
    pub(crate) fn of(error: &Error, settings: &Settings, when_missing: Option<&str>) -> Self {
        match error {
            Error::Call(status) => match status.source() {
                // Only what failed on this side of the wire has a source.
                Some(cause) => Self::transport(cause, settings),
                None => Self::refused(status, settings, when_missing),
            },
            Error::Incomplete(_)
            | Error::StreamEnded
            | Error::Secret(_)
            | Error::Header(_)
            | Error::Random(_)
            | Error::SigningSecret
            | Error::Body { .. }
            | Error::FileExists(_)
            | Error::File { .. }
            | Error::Ambiguous { .. }
            | Error::NothingToChange
            | Error::NoTerminalToConfirm(_)
            | Error::NoTerminal
            | Error::Output(_)
            | Error::Tls(_)
            | Error::Command(_)
            | Error::Runtime(_)
            | Error::Contexts(_)
            | Error::NoServer => Self::local(error),
            Error::Settings(error) => Self::settings(error),
        }
    }

    /// Of a failure that has nothing to do with the daemon.
    pub(crate) fn local(error: &Error) -> Self {
        let (status, hint) = match error {
            Error::Ambiguous { .. }
            | Error::Header(_)
            | Error::SigningSecret
            | Error::Secret(_)
            | Error::Body { .. }
            | Error::Tls(_)
            | Error::Settings(_)
            | Error::NoServer => (ExitStatus::Usage, None),
            Error::Command(error) => (error.status, error.hint),
            Error::FileExists(_) => (
                ExitStatus::Conflict,
                Some("choose another name, or add --force to replace it"),
            ),
            Error::NothingToChange => (
                ExitStatus::Usage,
                Some("the same command with --help shows what can be changed"),
            ),
            Error::NoTerminal => (
                ExitStatus::Usage,
                Some("`pipeletctl webhooks stats` tells the same in a pipe"),
            ),
            Error::NoTerminalToConfirm(_) => {
                (ExitStatus::Usage, Some("add --yes to go on unasked"))
            }
            Error::Incomplete(_) => (
                ExitStatus::Failed,
                Some("pipeletctl and pipeletd may differ in version: see `pipeletctl status`"),
            ),
            Error::StreamEnded => (
                ExitStatus::Failed,
                Some("the daemon may be shutting down: see `pipeletctl status`"),
            ),
            Error::Contexts(ContextsError::NoSuchContext { .. }) => (ExitStatus::NotFound, None),
            Error::Contexts(ContextsError::Exists(_)) => (
                ExitStatus::Conflict,
                Some("choose another name, or `pipeletctl context remove` it first"),
            ),
            Error::Call(_)
            | Error::Random(_)
            | Error::File { .. }
            | Error::Output(_)
            | Error::Runtime(_)
            | Error::Contexts(_) => (ExitStatus::Failed, None),
        };
        Self {
            status,
            message: chain(error),
            details: Vec::new(),
            hints: hint.map(str::to_owned).into_iter().collect(),
        }
    }

    pub(crate) fn settings(error: &SettingsError) -> Self {
        Self {
            status: ExitStatus::Usage,
            message: chain(error),
            details: Vec::new(),
            hints: Vec::new(),
        }
    }

    /// The call did not come through.
    fn transport(cause: &(dyn StdError + 'static), settings: &Settings) -> Self {
        let server = settings;
        let of_tls = find::<rustls::Error>(cause).and_then(tls_hint);
        let (message, hint) = if find::<TimeoutExpired>(cause).is_some() {
            (
                format!("pipeletd at {server} did not answer in time"),
                "--timeout gives it longer".to_owned(),
            )
        } else if find::<ConnectError>(cause).is_some() {
            (
                format!("cannot reach pipeletd at {server}: {}", root(cause)),
                of_tls.map_or_else(|| start_hint(settings), str::to_owned),
            )
        } else {
            (
                format!(
                    "lost the connection to pipeletd at {server}: {}",
                    root(cause)
                ),
                of_tls
                    .unwrap_or(
                        "see whether the daemon is up, and that --server is its gRPC address (port \
                         50051 by default), with https:// where it speaks TLS",
                    )
                    .to_owned(),
            )
        };
        Self {
            status: ExitStatus::Unreachable,
            message,
            details: Vec::new(),
            hints: vec![hint],
        }
    }

    /// The daemon answered, and said no.
    fn refused(status: &Status, settings: &Settings, when_missing: Option<&str>) -> Self {
        let found = status.get_error_details();
        let mut message = match status.message() {
            "" => status.code().description().to_owned(),
            text => printable(text),
        };
        if let Some(info) = found.error_info().filter(|info| !info.reason.is_empty()) {
            let _ = write!(message, " [{}]", printable(&info.reason));
        }
        let mut details: Vec<String> = found
            .bad_request()
            .into_iter()
            .flat_map(|bad| &bad.field_violations)
            .map(|fault| printable(&format!("{}: {}", fault.field, fault.description)))
            .collect();
        if let Some(request) = found.request_info() {
            details.push(printable(&format!("request id: {}", request.request_id)));
        }
        Self {
            status: exit_status(status.code()),
            message,
            details,
            hints: hint(status.code(), settings, when_missing)
                .into_iter()
                .collect(),
        }
    }
}

fn exit_status(code: Code) -> ExitStatus {
    match code {
        Code::Ok => ExitStatus::Success,
        Code::InvalidArgument | Code::OutOfRange => ExitStatus::Usage,
        Code::NotFound => ExitStatus::NotFound,
        Code::Unauthenticated | Code::PermissionDenied => ExitStatus::NotAuthorised,
        Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => ExitStatus::Conflict,
        Code::Unavailable => ExitStatus::Unreachable,
        // The daemon answered: it is a station that did not.
        Code::DeadlineExceeded
        | Code::Cancelled
        | Code::Unknown
        | Code::ResourceExhausted
        | Code::Unimplemented
        | Code::Internal
        | Code::DataLoss => ExitStatus::Failed,
    }
}

fn hint(code: Code, settings: &Settings, when_missing: Option<&str>) -> Option<String> {
    match code {
        Code::Unauthenticated => Some(match &settings.key.source {
            KeySource::File(path) => format!(
                "the key came from {}; an admin makes others with `pipeletctl keys create`",
                path.display()
            ),
            KeySource::Environment => "the key came from PIPELET_API_KEY; an admin makes others \
                                       with `pipeletctl keys create`"
                .to_owned(),
            KeySource::Nowhere(why) => format!(
                "no API key: set PIPELET_API_KEY, or name a file with --api-key-file ({why})"
            ),
        }),
        Code::NotFound => when_missing.map(str::to_owned),
        Code::Unimplemented => {
            Some("pipeletctl and pipeletd differ in version: see `pipeletctl status`".to_owned())
        }
        Code::Unavailable => {
            Some("the daemon is not ready: `pipeletctl status` says why".to_owned())
        }
        Code::DeadlineExceeded => Some("--timeout gives the station longer".to_owned()),
        Code::ResourceExhausted => Some("try again later".to_owned()),
        Code::PermissionDenied => {
            Some("an admin makes keys: `pipeletctl keys create --name NAME --role ROLE`".to_owned())
        }
        Code::Internal | Code::DataLoss => {
            Some("the daemon's log says more under this request's id".to_owned())
        }
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::InvalidArgument
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange => None,
    }
}

/// How the daemon that was meant is started.
fn start_hint(settings: &Settings) -> String {
    match (&settings.chosen_by, settings.server.is_loopback()) {
        (_, true) if settings.has_unit => {
            "`systemctl start pipeletd` starts it; `systemctl status pipeletd` tells why it ended"
                .to_owned()
        }
        (ChosenBy::Context { name, .. }, _) => format!(
            "the context {name} has this address (`pipeletctl context show`): see that the daemon \
             runs there"
        ),
        (ChosenBy::Default, _) => "start the daemon (`pipeletd --dev`), or name another with \
                                   --server or PIPELET_SERVER"
            .to_owned(),
        (ChosenBy::Argument | ChosenBy::Environment, _) => {
            "see that the daemon runs there, and that its gRPC address is this one".to_owned()
        }
    }
}

/// What to do about a handshake that failed.
const fn tls_hint(error: &rustls::Error) -> Option<&'static str> {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            Some("--ca-file (PIPELET_CA_FILE) names the authorities that vouch for its certificate")
        }
        rustls::Error::InvalidCertificate(_) => {
            Some("name the daemon as its certificate does, and see that it is valid now")
        }
        rustls::Error::InvalidMessage(_) => {
            Some("what answers there speaks no TLS: write the server as http://")
        }
        rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol) => Some(
            "what answers there does not speak gRPC: name the daemon's gRPC address (port 50051 by \
             default), and not the one of REST",
        ),
        _ => None,
    }
}

/// The error with its causes, in one line.
pub(crate) fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

/// The innermost cause: what really happened.
fn root<'a>(error: &'a (dyn StdError + 'static)) -> &'a (dyn StdError + 'static) {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost
}

fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // Such an error gives its cause's cause as its own.
        let wrapped = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        cause = wrapped.map_or_else(|| error.source(), |wrapped| Some(wrapped));
    }
    None
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pipelet_proto::v1;
    use tonic_types::ErrorDetails;

    use super::*;
    use crate::{cli::EXIT_STATUS, client::Client, settings::NamedBy};

    #[test]
    fn every_code_has_its_exit_status() {
        for (code, status) in [
            (Code::InvalidArgument, 2),
            (Code::NotFound, 3),
            (Code::Unauthenticated, 4),
            (Code::PermissionDenied, 4),
            (Code::AlreadyExists, 5),
            (Code::FailedPrecondition, 5),
            (Code::Aborted, 5),
            (Code::Unavailable, 69),
            (Code::DeadlineExceeded, 1),
            (Code::ResourceExhausted, 1),
            (Code::Internal, 1),
        ] {
            assert_eq!(exit_status(code) as u8, status, "{code:?}");
        }
    }

    #[test]
    fn the_exit_codes_are_those_of_the_help() {
        let all = [
            ExitStatus::Success,
            ExitStatus::Failed,
            ExitStatus::Usage,
            ExitStatus::NotFound,
            ExitStatus::NotAuthorised,
            ExitStatus::Conflict,
            ExitStatus::PartlyFailed,
            ExitStatus::Unreachable,
            ExitStatus::Interrupted,
        ];
        assert_eq!(
            all.map(|status| status as u8),
            EXIT_STATUS.map(|(code, _)| code)
        );
    }

    #[test]
    fn all_faults_are_listed() {
        let mut details = ErrorDetails::new();
        details
            .set_error_info("invalid_webhook", "pipelet", [])
            .add_bad_request_violation("url", "must be http or https")
            .add_bad_request_violation("events[0]", "unknown, did you mean \"Heartbeat\"?")
            .set_request_info("01JX", "");
        let status = Status::with_error_details(Code::InvalidArgument, "2 faults", details);
        assert_eq!(
            Report::of(&status.into(), &Settings::for_tests(), None),
            Report {
                status: ExitStatus::Usage,
                message: "2 faults [invalid_webhook]".into(),
                details: vec![
                    "url: must be http or https".into(),
                    "events[0]: unknown, did you mean \"Heartbeat\"?".into(),
                    "request id: 01JX".into(),
                ],
                hints: Vec::new(),
            }
        );
    }

    #[test]
    fn a_daemon_is_started_as_it_was_installed() {
        let hint = |server: &str, chosen_by, has_unit| {
            start_hint(&Settings {
                server: server.parse().unwrap(),
                chosen_by,
                has_unit,
                ..Settings::for_tests()
            })
        };
        let north = || ChosenBy::Context {
            name: "north".to_owned(),
            named_by: NamedBy::Current,
        };
        let (here, there) = ("http://127.0.0.1:50051", "http://10.1.2.3:50051");
        for (server, chosen_by, has_unit, told) in [
            (here, ChosenBy::Default, false, "pipeletd --dev"),
            (here, ChosenBy::Default, true, "systemctl start pipeletd"),
            (
                here,
                ChosenBy::Environment,
                true,
                "systemctl start pipeletd",
            ),
            (here, ChosenBy::Argument, false, "gRPC address"),
            (there, ChosenBy::Argument, true, "gRPC address"),
            (there, north(), true, "the context north"),
            (here, north(), false, "the context north"),
        ] {
            let hint = hint(server, chosen_by, has_unit);
            assert!(hint.contains(told), "{server} {has_unit}: {hint}");
        }
    }

    #[tokio::test]
    async fn nobody_at_home() {
        // A port that was free a moment ago: nothing listens there.
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let server = format!("http://{}", socket.local_addr().unwrap());
        drop(socket);
        let settings = Settings {
            server: server.parse().unwrap(),
            ..Settings::for_tests()
        };
        let call = Client::new(&settings)
            .unwrap()
            .daemon()
            .get_status(v1::GetStatusRequest {})
            .await;
        let report = Report::of(&call.unwrap_err().into(), &settings, None);
        assert_eq!(report.status, ExitStatus::Unreachable);
        assert!(
            report
                .message
                .starts_with(&format!("cannot reach pipeletd at {server}: ")),
            "{}",
            report.message
        );
    }

    #[tokio::test]
    async fn somebody_who_never_answers() {
        // The kernel accepts for the socket, and nothing reads from it.
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let settings = Settings {
            server: format!("http://{}", socket.local_addr().unwrap())
                .parse()
                .unwrap(),
            timeout: Duration::from_millis(50),
            ..Settings::for_tests()
        };
        let call = Client::new(&settings)
            .unwrap()
            .daemon()
            .get_status(v1::GetStatusRequest {})
            .await;
        let report = Report::of(&call.unwrap_err().into(), &settings, None);
        assert_eq!(report.status, ExitStatus::Unreachable);
        assert!(
            report.message.ends_with("did not answer in time"),
            "{}",
            report.message
        );
    }
}

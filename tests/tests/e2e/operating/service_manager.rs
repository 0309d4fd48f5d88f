//! What the daemon tells a service manager, over the socket that systemd would give it.

use std::{path::Path, time::Duration};

use pipelet_tests::{Builder, Faults, deadline::within};
use tokio::net::UnixDatagram;

use crate::scene::daemon;

/// Stands for systemd.
struct Manager {
    socket: UnixDatagram,
    _directory: tempfile::TempDir,
}

impl Manager {
    /// With a daemon that knows it, and has this long to say that it is alive.
    fn of(builder: Builder, watchdog: Duration) -> (Self, Builder) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        let builder = builder
            .variable("NOTIFY_SOCKET", utf8(&path))
            .variable("WATCHDOG_USEC", &watchdog.as_micros().to_string());
        let manager = Self {
            socket,
            _directory: directory,
        };
        (manager, builder)
    }

    /// The next message, line by line.
    async fn heard(&self) -> Vec<String> {
        let mut message = [0; 4096];
        let length = within("a word to the manager", self.socket.recv(&mut message)).await;
        let message = &message[..length.expect("a message")];
        let text = std::str::from_utf8(message).expect("UTF-8");
        text.lines().map(str::to_owned).collect()
    }

    /// The next message that is no sign of life.
    async fn news(&self) -> Vec<String> {
        loop {
            let heard = self.heard().await;
            if heard != ["WATCHDOG=1"] {
                return heard;
            }
        }
    }
}

fn utf8(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[tokio::test]
async fn a_manager_hears_of_the_start_of_reloads_and_of_the_end() {
    let (manager, builder) = Manager::of(daemon(), Duration::from_millis(100));
    let mut daemon = builder.start().await;
    let status = format!("STATUS=listening http={} grpc=", daemon.http());
    let ready = manager.news().await;
    assert_eq!(ready[0], "READY=1");
    assert!(ready[1].starts_with(&status), "{ready:?}");
    for _ in 0..3 {
        assert_eq!(manager.heard().await, ["WATCHDOG=1"]);
    }

    daemon.signal("HUP").await;
    let reloading = manager.news().await;
    assert_eq!(reloading[0], "RELOADING=1");
    let since = reloading[1].strip_prefix("MONOTONIC_USEC=");
    assert!(
        since.is_some_and(|since| since.parse::<u64>().is_ok()),
        "{reloading:?}"
    );
    assert_eq!(manager.news().await, ["READY=1"]);

    assert!(daemon.terminate().await.success());
    assert_eq!(manager.news().await[0], "STOPPING=1");
}

/// A committer that no longer answers is no sign of life, even though everything else goes on.
#[tokio::test]
async fn a_daemon_whose_journal_hangs_is_not_alive() {
    let (faults, builder) = Faults::of(daemon());
    let (manager, builder) = Manager::of(builder, Duration::from_millis(100));
    let daemon = builder.start().await;
    manager.news().await;
    manager.heard().await;
    let second = Duration::from_secs(1);
    faults.delay_syncs(second);
    let mut station = pipelet_tests::Station::connect(daemon.ocpp(), "S1").await;
    let mut beating = std::pin::pin!(station.ok("Heartbeat", "{}"));
    let mut longest = Duration::ZERO;
    let mut answered = false;
    while !answered {
        let since = std::time::Instant::now();
        tokio::select! {
            _ = &mut beating => answered = true,
            heard = manager.heard() => assert_eq!(heard, ["WATCHDOG=1"]),
        }
        longest = longest.max(since.elapsed());
    }
    assert!(longest > second / 2, "{longest:?}");
    faults.delay_syncs(Duration::ZERO);
    manager.heard().await;
}

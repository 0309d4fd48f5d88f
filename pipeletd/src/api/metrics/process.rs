//! What the system says of the process and of its disk. What can't be read is left out.
//!
//! The names are those that every Prometheus client has, so that common dashboards work.

use std::{fs, path::Path};

use jiff::Timestamp;
use prometheus::proto::MetricFamily;
use rustix::{
    param::{clock_ticks_per_second, page_size},
    process::{Resource, getrlimit},
};

use super::{
    super::status::{Disk, DiskState, directory_bytes},
    daemon::seconds,
    family::Family,
};

pub(super) fn process(started: Timestamp) -> Vec<MetricFamily> {
    let mut families = vec![
        Family::gauge("process_start_time_seconds", "When the process started.")
            .of(seconds(started)),
    ];
    let fields = fs::read_to_string("/proc/self/stat").ok();
    let fields = fields.as_deref().and_then(Fields::of);
    if let Some(fields) = fields {
        #[expect(clippy::cast_precision_loss, reason = "it fits for 10,000 years")]
        let cpu = fields.ticks as f64 / clock_ticks_per_second() as f64;
        families.push(Family::counter("process_cpu_seconds_total", "CPU time.").of(cpu));
        let resident = fields.pages * page_size() as u64;
        families
            .push(Family::gauge("process_resident_memory_bytes", "Resident memory.").of(resident));
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        families
            .push(Family::gauge("process_open_fds", "Open files and sockets.").of(open.count()));
    }
    if let Some(most) = getrlimit(Resource::Nofile).current {
        families.push(Family::gauge("process_max_fds", "As many may be open.").of(most));
    }
    families
}

/// Of `/proc/self/stat` (proc(5)).
#[derive(Debug, PartialEq, Eq)]
struct Fields {
    /// In user and in system mode.
    ticks: u64,
    /// Resident.
    pages: u64,
}

impl Fields {
    fn of(stat: &str) -> Option<Self> {
        // The command's name, in brackets, may have anything in it.
        let (_, rest) = stat.rsplit_once(')')?;
        // The first of these is the third of all.
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            ticks: field(14)? + field(15)?,
            pages: field(24)?,
        })
    }
}

pub(super) fn disk(data_dir: &Path) -> Vec<MetricFamily> {
    let mut used = Family::gauge(
        "pipelet_store_bytes",
        "What a database of the store takes on disk.",
    );
    for database in ["hot", "cold"] {
        if let Ok(bytes) = directory_bytes(&data_dir.join(database)) {
            used.add(&[("database", database)], bytes);
        }
    }
    let mut families = vec![used.done()];
    if let Some(disk) = Disk::of(data_dir) {
        let mut state = Family::gauge(
            "pipelet_disk_state",
            "1 for the state that the disk of the data directory is in: ok, low or critical.",
        );
        for each in DiskState::ALL {
            state.add(&[("state", each.name())], disk.state() == each);
        }
        families.extend([
            state.done(),
            Family::gauge(
                "pipelet_disk_free_bytes",
                "What is free for the daemon on the disk of its data directory.",
            )
            .of(disk.free),
            Family::gauge(
                "pipelet_disk_size_bytes",
                "The size of the disk of the data directory.",
            )
            .of(disk.size),
        ]);
    }
    families
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_is_a_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 50 25 0 0 20 0 9 0 100 5000 321 18446744073709551615 1";
        let expected = Fields {
            ticks: 75,
            pages: 321,
        };
        assert_eq!(Fields::of(stat), Some(expected));
        assert_eq!(Fields::of("7 (a) S 1"), None);
        assert_eq!(Fields::of(""), None);
    }
}

//! What /proc says of a process (time, memory, bytes written), and having it stand still.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::{
    Pid, Resource, Signal, WaitId, WaitIdOptions, getrlimit, kill_process, waitid,
};
use tokio::process::Child;

/// Has a process stand still (`SIGSTOP`), and returns once none of its threads runs.
pub fn pause(child: &Child) {
    kill_process(pid_of(child), Signal::STOP).expect("it takes signals");
    // A signal is under way when `kill` returns, and threads on other processors still run.
    waitid(WaitId::Pid(pid_of(child)), WaitIdOptions::STOPPED).expect("it stands still");
}

/// Has it go on (`SIGCONT`).
pub fn resume(child: &Child) {
    kill_process(pid_of(child), Signal::CONT).expect("it takes signals");
}

fn pid_of(child: &Child) -> Pid {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    pid.and_then(Pid::from_raw).expect("a process that runs")
}

/// What a process has used since its start.
#[derive(Debug, Clone, Copy, Default)]
pub struct Used {
    pub cpu: Duration,
    /// Bytes that were on their way to the disk, the file system's own not among them.
    pub written: u64,
}

pub fn used(pid: u32) -> Used {
    Used {
        cpu: cpu_in(&read(&format!("/proc/{pid}/stat"))),
        written: field(&read(&format!("/proc/{pid}/io")), "write_bytes:"),
    }
}

pub fn cpu_of_this_thread() -> Duration {
    cpu_in(&read("/proc/thread-self/stat"))
}

/// Resident memory in bytes.
pub fn rss(pid: u32) -> u64 {
    field(&read(&format!("/proc/{pid}/status")), "VmRSS:") << 10
}

/// The most that was ever resident, in bytes.
pub fn peak_rss(pid: u32) -> u64 {
    field(&read(&format!("/proc/{pid}/status")), "VmHWM:") << 10
}

pub fn threads(pid: u32) -> u64 {
    field(&read(&format!("/proc/{pid}/status")), "Threads:")
}

/// Files and sockets that are open.
pub fn descriptors(pid: u32) -> usize {
    let open = fs::read_dir(format!("/proc/{pid}/fd"));
    open.expect("a running process").count()
}

/// How many files this process, and one that it starts, may have open.
pub fn open_files() -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    limit.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    })
}

/// What a directory takes on disk.
pub fn disk(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let size = |path: PathBuf| match fs::symlink_metadata(&path) {
        Ok(found) if found.is_dir() => disk(&path),
        Ok(found) => found.blocks() * 512,
        // Removed meanwhile.
        Err(_) => 0,
    };
    entries.map(|entry| size(entry.path())).sum()
}

/// The machine, in a line.
pub fn machine() -> String {
    let cpus = read("/proc/cpuinfo");
    let models = cpus.lines().filter_map(|line| {
        let (name, model) = line.split_once(':')?;
        (name.trim() == "model name").then(|| model.trim().to_owned())
    });
    let models: Vec<_> = models.collect();
    let memory = field(&read("/proc/meminfo"), "MemTotal:") >> 20;
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    format!(
        "{} × {}, {memory} GiB, Linux {}, load {} at the start",
        std::thread::available_parallelism().map_or(0, usize::from),
        models.first().map_or("CPU", String::as_str),
        kernel.split(['-', '\n']).next().unwrap_or_default(),
        load.split(' ').next().unwrap_or_default(),
    )
}

/// User and system time (proc(5), fields 14 and 15), in ticks of 10 ms.
fn cpu_in(stat: &str) -> Duration {
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<u64> = after_name
        .split_whitespace()
        .map(|field| field.parse().unwrap_or(0))
        .collect();
    let ticks = fields.get(11).unwrap_or(&0) + fields.get(12).unwrap_or(&0);
    Duration::from_millis(ticks * 10)
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let word = line.and_then(|rest| rest.split_whitespace().next());
    let number = word.and_then(|word| word.parse().ok());
    number.unwrap_or_else(|| panic!("no {name} in {text}"))
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

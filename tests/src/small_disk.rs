//! A disk that a test can fill: a small tmpfs in a mount namespace of its own.
//!
//! A process that sleeps holds the namespace, so the disk outlives every daemon that is killed.
//! It is reached through that process's `/proc/PID/root`, so nothing of the machine's own mounts
//! changes. Needs root or user namespaces.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    process::Stdio,
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use crate::deadline::within;

#[derive(Debug)]
pub struct SmallDisk {
    /// Where it is mounted, as the holder sees it.
    _mount_point: TempDir,
    root: PathBuf,
    _holder: Child,
}

impl SmallDisk {
    pub async fn new(mebibytes: u32) -> Self {
        let mount_point = tempfile::tempdir().expect("a temporary directory");
        let is_root = fs::metadata("/proc/self").expect("/proc").uid() == 0;
        let own_user: &[&str] = if is_root { &[] } else { &["--map-root-user"] };
        let script =
            r#"mount -t tmpfs -o size="$2" tmpfs "$1" && echo mounted && exec sleep infinity"#;
        let mut holder = Command::new("unshare")
            .args(own_user)
            .args(["--mount", "sh", "-c", script, "sh"])
            .arg(mount_point.path())
            .arg(format!("{mebibytes}m"))
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("unshare");
        let stdout = holder.stdout.take().expect("stdout is piped");
        let mut lines = BufReader::new(stdout).lines();
        let line = within("a mounted tmpfs", lines.next_line()).await;
        let line = line.expect("a readable pipe");
        assert_eq!(line.as_deref(), Some("mounted"), "no tmpfs: no root?");
        let pid = holder.id().expect("it runs");
        let mounted_at = mount_point.path().strip_prefix("/").expect("absolute");
        Self {
            root: PathBuf::from(format!("/proc/{pid}/root")).join(mounted_at),
            _mount_point: mount_point,
            _holder: holder,
        }
    }

    /// The directory that is the disk.
    pub fn path(&self) -> &PathBuf {
        &self.root
    }

    /// How many bytes are left.
    pub fn free(&self) -> u64 {
        let disk = rustix::fs::statvfs(&self.root).expect("a disk");
        disk.f_bavail * disk.f_frsize
    }

    /// Leaves no room at all.
    pub fn fill(&self) {
        let mut filler = File::create(self.root.join("filler")).expect("a writable disk");
        // Ever smaller pieces, so that nothing is left of the last page.
        for piece in [1 << 16, 1 << 12, 1] {
            let piece = vec![b'x'; piece];
            let full = loop {
                if let Err(error) = filler.write_all(&piece) {
                    break error;
                }
            };
            assert_eq!(full.kind(), io::ErrorKind::StorageFull, "{full}");
        }
    }

    /// Takes away what [`Self::fill`] has put there.
    pub fn make_room(&self) {
        fs::remove_file(self.root.join("filler")).expect("a writable disk");
    }
}

//! What is on disk: kept through crashes, full disks and bit rot, moved by backups.

mod backup;
mod compaction;
mod crash;
mod disk;
mod formats;
mod moving;
mod power_loss;
mod rot;

//! The torture: real load on the real daemon, which is killed at random moments, again and again.
//!
//! `cargo test -p pipelet-tests --test torture` runs what fits into every change's check: some
//! dozens of kills, some power losses, and a soak. By hand: `-- --rounds 1000`, `-- --power-loss
//! --rounds 200`, `-- --cluster --rounds 300`, `-- --soak 1h`, with `--release` before the `--`. The seed of a run is printed;
//! `--seed` makes the same choices again, though not at the same times.
//!
//! - `run` is what all share; `stations`, `callers`, `keys`, and `receivers` with `neighbours` and
//!   `secrets` are the load;
//! - `rounds` kills, starts and checks; `cluster` does so to nodes and to servers of NATS; `soak`
//!   watches what the daemon takes.
//!
//! The judge is `pipelet_tests::oracle`, which knows only what was seen from outside.

mod callers;
mod cluster;
mod keys;
mod neighbours;
mod receivers;
mod rounds;
mod run;
mod secrets;
mod soak;
mod stations;

use std::{
    io::{self, Write},
    time::Duration,
};

use clap::Parser;

use self::rounds::{Found, Mode};

const KILL_ROUNDS: u32 = 30;
const POWER_ROUNDS: u32 = 15;
const VOID_ROUNDS: u32 = 15;
const CLUSTER_ROUNDS: u32 = 10;
const SOAK: Duration = Duration::from_secs(100);

#[derive(Debug, Parser)]
struct Options {
    /// How many rounds of kills, or of power losses.
    #[arg(long)]
    rounds: Option<u32>,
    /// Makes the choices of the run with this seed.
    #[arg(long)]
    seed: Option<u64>,
    /// Only power losses.
    #[arg(long)]
    power_loss: bool,
    /// Only the control: a disk whose syncs do nothing.
    #[arg(long)]
    void_syncs: bool,
    /// Only a cluster, of which nodes and servers die.
    #[arg(long)]
    cluster: bool,
    /// Only a soak, for so long.
    #[arg(long, value_parser = humantime::parse_duration)]
    soak: Option<Duration>,
    /// As the other tests have it: nothing is run unless it is part of "torture".
    filter: Option<String>,
    #[arg(long, hide = true)]
    nocapture: bool,
}

fn main() {
    let options = Options::parse();
    if options
        .filter
        .is_some_and(|filter| !"torture".contains(&filter))
    {
        return;
    }
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    say(&format!("seed {seed}"));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        match (options.soak, options.rounds, options.power_loss) {
            (Some(time), _, _) => soak(time, seed).await,
            _ if options.void_syncs => void_syncs_are_found(seed).await,
            _ if options.cluster => {
                torture_cluster(options.rounds.unwrap_or(CLUSTER_ROUNDS), seed).await;
            }
            (None, rounds, true) => {
                torture(Mode::PowerLoss, rounds.unwrap_or(POWER_ROUNDS), seed).await;
            }
            (None, Some(rounds), false) => torture(Mode::Kills, rounds, seed).await,
            (None, None, false) => {
                torture(Mode::Kills, KILL_ROUNDS, seed).await;
                torture(Mode::PowerLoss, POWER_ROUNDS, seed).await;
                void_syncs_are_found(seed).await;
                torture_cluster(CLUSTER_ROUNDS, seed).await;
                soak(SOAK, seed).await;
            }
        }
    });
}

async fn torture(mode: Mode, rounds: u32, seed: u64) {
    say(&format!("{mode:?}, {rounds} rounds"));
    match rounds::run(mode, rounds, seed).await {
        Ok(outcome) => say(&format!("nothing lost: {outcome}")),
        Err(found) => fail(&found, seed),
    }
}

async fn torture_cluster(rounds: u32, seed: u64) {
    say(&format!("a cluster, {rounds} rounds"));
    match cluster::run(rounds, seed).await {
        Some(Ok(outcome)) => say(&format!("nothing lost: {outcome}")),
        Some(Err(found)) => fail(&found, seed),
        None => {}
    }
}

async fn soak(time: Duration, seed: u64) {
    soak::check_the_measure();
    if let Err(found) = soak::run(time, seed).await {
        fail(&found, seed);
    }
}

/// The control: where syncs do nothing, a power loss must be seen to lose something.
async fn void_syncs_are_found(seed: u64) {
    match rounds::run(Mode::VoidSyncs, VOID_ROUNDS, seed).await {
        Ok(outcome) => panic!("seed {seed}: void syncs went unnoticed: {outcome}"),
        Err(found) => match found.faults.iter().find(|fault| fault.is_loss()) {
            Some(loss) => say(&format!("void syncs were noticed: {loss:?}")),
            None => fail(&found, seed),
        },
    }
}

fn fail(found: &Found, seed: u64) -> ! {
    let (round, count) = (found.round, found.faults.len());
    for fault in found.faults.iter().take(20) {
        say(&format!("FAULT: {fault:?}"));
    }
    panic!("seed {seed}: {count} faults in round {round}");
}

/// Says how it goes, on standard error.
fn say(text: &str) {
    // Nobody may be listening.
    let _ = writeln!(io::stderr(), "torture: {text}");
}

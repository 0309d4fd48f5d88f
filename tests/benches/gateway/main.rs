//! Pipelet from end to end, beside what the machine and its peers can do: the real binary with
//! its store on disk, raw stations, receivers that cost next to nothing.
//!
//! `cargo bench -p pipelet-tests --bench gateway`, or with `-- --quick` for what must hold on any
//! machine: nothing acknowledged is lost, and nothing is told twice without a crash. `-- --help`
//! names the rest. Everything shares one machine, so compare ratios only.
//!
//! - `limits`: what POSTs, frames and syncs cost with nothing in between;
//! - `throughput`: closed loops, ours and the peers' in turn; `peers` installs these;
//! - `steady`, `idle`, `backlog`, `growth`, `retention`: the questions that an operator has next;
//! - `fleet`, `sink` and `ledger` are the load: stations, receivers, and what is between them;
//! - `report`, `bars` and `plot` tell what came out.

mod backlog;
mod bars;
mod calls;
mod fleet;
mod frames;
mod gateway;
mod growth;
mod histogram;
mod idle;
mod ledger;
mod limits;
mod options;
mod peers;
mod plot;
mod report;
mod retention;
mod sink;
mod steady;
mod throughput;

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser as _;
use pipelet_tests::process;

use self::{
    options::{Options, Section},
    report::Report,
};

fn main() -> io::Result<ExitCode> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut report = Report::new();
    runtime.block_on(run(&options, &mut report))?;
    write(&report)?;
    if options.write_results {
        publish(&report)?;
    }
    for fault in report.faults() {
        io::Write::write_all(&mut io::stderr(), format!("FAULT: {fault}\n").as_bytes())?;
    }
    Ok(if report.faults().is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn run(options: &Options, report: &mut Report) -> io::Result<()> {
    if options.wants(Section::Limits) {
        limits::run(options, report).await?;
    }
    let turns = [Section::Ours, Section::Cluster, Section::Peers];
    if turns.iter().any(|section| options.wants(*section)) {
        throughput::run(options, report).await?;
    }
    if options.wants(Section::Steady) {
        steady::run(options, report).await?;
    }
    if options.wants(Section::Idle) {
        idle::run(options, report).await?;
    }
    if options.wants(Section::Backlog) {
        backlog::run(options, report).await?;
    }
    if options.wants(Section::Growth) {
        growth::run(options, report).await?;
    }
    if options.wants(Section::Retention) {
        retention::run(options, report).await?;
    }
    report.add(bars::table(report))
}

/// Writes `target/bench/gateway.{md,json}`.
fn write(report: &Report) -> io::Result<()> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
    let directory: PathBuf = target.unwrap_or(Path::new("target")).join("bench");
    fs::create_dir_all(&directory)?;
    fs::write(directory.join("gateway.md"), report.markdown())?;
    fs::write(
        directory.join("gateway.json"),
        format!("{:#}\n", report.json()),
    )
}

/// Writes `tests/benches/RESULTS.md` and the plots that it shows.
fn publish(report: &Report) -> io::Result<()> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches");
    let mut text = report.markdown();
    for (file, drawn) in [
        ("throughput.svg", plot::throughput(report)),
        ("latency.svg", plot::latency(report)),
    ] {
        // A section that wasn't run has nothing to draw.
        if let Some(svg) = drawn {
            fs::write(directory.join(file), svg)?;
            text = text + "![" + file + "](" + file + ")\n\n";
        }
    }
    fs::write(
        directory.join("RESULTS.md"),
        text.trim_end().to_owned() + "\n",
    )
}

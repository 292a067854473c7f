//! The library beside openraft, doing the work of openraft's own minimal benchmark: three nodes in
//! one process, logs in memory, no network, empty commands; every client waits for its reply before
//! it proposes again. Then this library alone: larger commands, disks, sockets,
//! processes.
//!
//! ```sh
//! cargo run --release --manifest-path bench/library/Cargo.toml               # some minutes
//! cargo run --release --manifest-path bench/library/Cargo.toml -- --quick    # figures mean nothing
//! cargo run --release --manifest-path bench/library/Cargo.toml -- --rounds 7 --beside   # the first half
//! ```
//!
//! Both run in the same process, in turns, on a tokio runtime with two workers of their own each time.
//! A row is the median of its rounds. On a machine that others use, too, the CPU time per command is
//! the figure to look at.

mod allocations;
mod ours;
mod processes;
mod theirs;

use std::time::Duration;

use ours::Setup;

/// What one run gave.
struct Run {
    per_second: f64,
    cpu_us: f64,
    p50_us: f64,
    p99_us: f64,
    allocations: f64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == processes::NODE) {
        return processes::node(&arguments[1..]);
    }
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let rounds = arguments.iter().position(|argument| argument == "--rounds");
    let rounds = rounds.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(3);
    let (rounds, scale) = if quick { (1, 100) } else { (rounds, 1) };

    println!("quorate {} beside openraft 0.10.0-alpha.37, 2 tokio workers", ours::VERSION);
    println!("{rounds} rounds, median; empty commands, logs in memory, no network\n");
    println!(
        "clients |        ours/s    openraft/s  ratio | CPU us/cmd ratio | allocs/cmd | p50/p99 us ours, openraft"
    );
    for (clients, commands) in
        [(1, 60_000), (64, 600_000), (256, 1_000_000), (1024, 1_500_000), (4096, 1_500_000)]
    {
        let commands = (commands / scale).max(clients);
        let (mut mine, mut other) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let setup = Setup::Memory;
            mine.push(measure(commands, ours::run(setup, clients, commands, 0)));
            other.push(measure(commands, theirs::run(clients, commands)));
        }
        let (mine, other) = (median(&mine), median(&other));
        println!(
            "{clients:7} | {:13.0} {:13.0} {:5.2}x | {:4.2} {:5.2} {:4.2}x | {:4.1} {:5.1} | {:.0}/{:.0}, {:.0}/{:.0}",
            mine.per_second,
            other.per_second,
            mine.per_second / other.per_second,
            mine.cpu_us,
            other.cpu_us,
            other.cpu_us / mine.cpu_us,
            mine.allocations,
            other.allocations,
            mine.p50_us,
            mine.p99_us,
            other.p50_us,
            other.p99_us,
        );
    }

    if arguments.iter().any(|argument| argument == "--beside") {
        return;
    }
    println!("\nours alone\n");
    println!(
        "log, network        | bytes clients |   commands/s | CPU us/cmd | allocs/cmd | p50 us  p99 us"
    );
    let all = [
        (Some(Setup::Memory), "memory, none", 400_000),
        (Some(Setup::Disk), "disk, none", 20_000),
        (Some(Setup::DiskAndSockets), "disk, TCP", 20_000),
        (None, "three processes", 20_000),
    ];
    for (setup, name, commands) in all {
        for bytes in [16, 256, 1024] {
            for clients in [1, 64, 1024] {
                let commands = match (setup, clients) {
                    (Some(Setup::Memory), 1) => commands / 10,
                    (_, 1) => commands / 20,
                    (Some(Setup::Memory), _) => commands,
                    _ => commands * 5,
                };
                let commands = (commands / scale).max(clients);
                let once = |_| match setup {
                    Some(setup) => measure(commands, ours::run(setup, clients, commands, bytes)),
                    None => processes::run(clients, commands, bytes),
                };
                let runs: Vec<Run> = (0..rounds).map(once).collect();
                let run = median(&runs);
                println!(
                    "{name:19} | {bytes:5} {clients:7} | {:12.0} | {:10.2} | {:10.1} | {:6.0} {:7.0}",
                    run.per_second, run.cpu_us, run.allocations, run.p50_us, run.p99_us
                );
            }
        }
    }
}

fn measure(commands: usize, work: impl Future<Output = (Duration, Vec<u64>)>) -> Run {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime can be had");
    let (cpu, allocations) = (cpu_seconds(), allocations::count());
    let (elapsed, mut latencies) = runtime.block_on(work);
    drop(runtime);
    let (cpu, allocations) = (cpu_seconds() - cpu, allocations::count() - allocations);
    latencies.sort_unstable();
    let commands = commands as f64;
    Run {
        per_second: commands / elapsed.as_secs_f64(),
        cpu_us: cpu * 1e6 / commands,
        p50_us: percentile(&latencies, 50),
        p99_us: percentile(&latencies, 99),
        allocations: allocations as f64 / commands,
    }
}

/// Of sorted nanoseconds, in microseconds.
fn percentile(latencies: &[u64], percent: usize) -> f64 {
    latencies[(latencies.len() - 1) * percent / 100] as f64 / 1e3
}

/// Each figure by itself.
fn median(runs: &[Run]) -> Run {
    let middle = |figure: fn(&Run) -> f64| {
        let mut figures: Vec<f64> = runs.iter().map(figure).collect();
        figures.sort_unstable_by(f64::total_cmp);
        figures[figures.len() / 2]
    };
    Run {
        per_second: middle(|run| run.per_second),
        cpu_us: middle(|run| run.cpu_us),
        p50_us: middle(|run| run.p50_us),
        p99_us: middle(|run| run.p99_us),
        allocations: middle(|run| run.allocations),
    }
}

/// User and system time of this process, from the kernel, in hundredths of seconds.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: f64 = fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks / 100.0
}

//! The rows, and what they are held to.

use std::process::{Command, Stdio};

use crate::Arguments;
use crate::bare::Bare;
use crate::measure::{self, Log, Outcome};
use crate::peer::Peer;
use crate::quorate::Quorate;

/// Writers and batch size of each row.
const ROWS: [(usize, usize); 6] = [(1, 1), (1, 16), (1, 256), (4, 1), (4, 16), (4, 256)];

/// `quorate` is a log that has been compacted before and is again and again, `quorate-fresh` one that
/// never is, and so has to fill a new segment for each one that it uses up.
const SYSTEMS: [&str; 5] =
    ["bare", "quorate", "quorate-fresh", "raft-engine", "raft-engine-prefill"];

/// One measurement of one system.
fn measure_one(system: &str, arguments: &Arguments, writers: usize, batch: usize) -> Outcome {
    let dir = arguments.dir.join(format!("{system}-{}", std::process::id()));
    measure::clear(&dir);
    let log: Box<dyn Log> = match system {
        "bare" => Box::new(Bare::new(&dir, writers)),
        "quorate" => Box::new(Quorate::new(&dir, writers, true)),
        "quorate-fresh" => Box::new(Quorate::new(&dir, writers, false)),
        "raft-engine" => Box::new(Peer::open(&dir, false)),
        "raft-engine-prefill" => Box::new(Peer::open(&dir, true)),
        _ => panic!("unknown system {system}"),
    };
    let outcome = measure::run(&*log, writers, batch, arguments.duration());
    if arguments.verbose {
        print_row(&format!("    {system}"), &outcome);
        println!("            {}", log.report());
    }
    drop(log);
    measure::clear(&dir);
    outcome
}

/// The table.
pub(crate) fn run(arguments: &Arguments) {
    println!(
        "{:<24}{:>10} {:>8} {:>8} {:>8} {:>8} {:>9} {:>7}",
        "", "entries/s", "p50 us", "p99", "p99.9", "max", "CPU us/e", "bytes"
    );
    for (writers, batch) in ROWS {
        let name = format!("{writers}x{batch}");
        if arguments.only.as_ref().is_some_and(|only| *only != name) {
            continue;
        }
        let mut outcomes = vec![Vec::new(); SYSTEMS.len()];
        for round in 0..arguments.rounds {
            for at in 0..SYSTEMS.len() {
                // Nobody is always the first after the one that leaves the disk busy.
                let at = (at + round) % SYSTEMS.len();
                outcomes[at].push(measure_one(SYSTEMS[at], arguments, writers, batch));
            }
        }
        println!("{writers} writers, batch {batch}");
        let medians: Vec<Outcome> = outcomes.iter().map(|outcomes| median(outcomes)).collect();
        for (system, outcome) in SYSTEMS.iter().zip(&medians) {
            print_row(system, outcome);
        }
        for at in [1, 2] {
            let ratio = |other: usize| {
                let mut ratios: Vec<f64> = outcomes[at]
                    .iter()
                    .zip(&outcomes[other])
                    .map(|(ours, theirs)| ours.entries_per_second / theirs.entries_per_second)
                    .collect();
                ratios.sort_by(f64::total_cmp);
                ratios[ratios.len() / 2]
            };
            println!(
                "    {:<20} {:.2}x bare (p99 {:.2}x), {:.2}x raft-engine ({:.2}x with prefill, CPU \
                 {:.2}x); p99.9 {:.1}x p50",
                SYSTEMS[at],
                ratio(0),
                medians[at].p99_us / medians[0].p99_us,
                ratio(3),
                ratio(4),
                medians[at].cpu_us_per_entry / medians[3].cpu_us_per_entry,
                medians[at].p999_us / medians[at].p50_us,
            );
        }
    }
}

fn print_row(system: &str, outcome: &Outcome) {
    let bytes = outcome.amplification;
    let amplification = if bytes > 0.0 { format!("{bytes:.2}") } else { "-".to_owned() };
    println!(
        "    {system:<20}{:>10.0} {:>8.0} {:>8.0} {:>8.0} {:>8.0} {:>9.2} {amplification:>7}",
        outcome.entries_per_second,
        outcome.p50_us,
        outcome.p99_us,
        outcome.p999_us,
        outcome.max_us,
        outcome.cpu_us_per_entry,
    );
}

fn median(outcomes: &[Outcome]) -> Outcome {
    let of = |value: fn(&Outcome) -> f64| {
        let mut values: Vec<f64> = outcomes.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Outcome {
        entries_per_second: of(|o| o.entries_per_second),
        p50_us: of(|o| o.p50_us),
        p99_us: of(|o| o.p99_us),
        p999_us: of(|o| o.p999_us),
        max_us: of(|o| o.max_us),
        cpu_us_per_entry: of(|o| o.cpu_us_per_entry),
        amplification: of(|o| o.amplification),
    }
}

/// Three logs in three processes at once, beside three bare loops.
pub(crate) fn three_processes(arguments: &Arguments) {
    let mut ratios = Vec::new();
    for _ in 0..arguments.rounds {
        let bare = total_of_three("bare", arguments);
        let ours = total_of_three("quorate", arguments);
        println!("three processes, batch 1: bare {bare:.0}/s, quorate {ours:.0}/s in total");
        ratios.push(ours / bare);
    }
    ratios.sort_by(f64::total_cmp);
    println!("three processes: {:.2}x three bare loops", ratios[ratios.len() / 2]);
}

fn total_of_three(system: &str, arguments: &Arguments) -> f64 {
    let program = std::env::current_exe().expect("the path of this program");
    let spawn = |_| {
        let mut command = Command::new(&program);
        command.arg("--child").arg(system).arg("--seconds").arg(arguments.seconds.to_string());
        command.stdout(Stdio::piped()).spawn().expect("a process")
    };
    let children: Vec<_> = (0..3).map(spawn).collect();
    let rate = |child: std::process::Child| {
        let output = child.wait_with_output().expect("a result");
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        text.parse::<f64>().expect("a number")
    };
    children.into_iter().map(rate).sum()
}

/// One of the three.
pub(crate) fn child(system: &str, arguments: &Arguments) {
    println!("{}", measure_one(system, arguments, 1, 1).entries_per_second);
}

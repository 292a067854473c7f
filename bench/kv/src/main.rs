//! The key-value store beside bare redb in the same layout, and beside an ordered map in memory.
//!
//! ```text
//! cargo run --release --manifest-path bench/kv/Cargo.toml [-- [--quick] [--rounds N] [--keys N] [--large] [--dir PATH]]
//! ```
//!
//! Keys of 32 bytes, values of 256. Rows that are compared run in turns, and the median of the rounds' ratios is what counts.
//! `--large` fills a store with ten million keys instead, and looks at that.

mod bare;
mod measure;
mod ours;
mod watches;

use std::path::PathBuf;

use bytes::Bytes;

/// What is measured, and where.
#[derive(Clone, Debug)]
pub struct Plan {
    pub dir: PathBuf,
    pub rounds: usize,
    /// Keys of the filled store.
    pub keys: u64,
    /// Seconds of each run of puts.
    pub seconds: f64,
    pub reads: u64,
    /// Ten million keys, and nothing else.
    pub large: bool,
}

fn plan() -> Result<Plan, String> {
    let mut plan = Plan {
        dir: std::env::temp_dir(),
        rounds: 7,
        keys: 1_000_000,
        seconds: 2.0,
        reads: 200_000,
        large: false,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--quick" => {
                plan = Plan { rounds: 1, keys: 5000, seconds: 0.1, reads: 2000, ..plan };
            }
            "--rounds" => plan.rounds = number(&value()?)?.max(1) as usize,
            "--keys" => plan.keys = number(&value()?)?.max(2000),
            "--large" => plan = Plan { keys: 10_000_000, large: true, ..plan },
            "--dir" => plan.dir = PathBuf::from(value()?),
            other => return Err(format!("unknown argument {other}")),
        }
    }
    Ok(plan)
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text} is not a number"))
}

/// The key of a number: 32 bytes, scattered.
pub fn key(number: u64) -> Bytes {
    let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Bytes::from(format!("/bench/{scattered:016x}/{:08}", number % 100_000_000))
}

/// About a thousand keys that follow each other: the first, and the end.
pub fn thousand(n: u64, keys: u64) -> (Bytes, Bytes) {
    let span = (u64::MAX / keys).saturating_mul(1000);
    let first = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % (u64::MAX - span).max(1);
    let name = |at: u64| Bytes::from(format!("/bench/{at:016x}"));
    (name(first), name(first + span))
}

/// 256 bytes.
pub fn value(number: u64) -> Bytes {
    let mut value = vec![number as u8; 256];
    value[..8].copy_from_slice(&number.to_be_bytes());
    Bytes::from(value)
}

fn main() {
    let args: Vec<_> = std::env::args().collect();
    if let [_, open, path, values] = &args[..]
        && open == "--open"
    {
        return ours::open(path.as_ref(), values);
    }
    let mut plan = match plan() {
        Ok(plan) => plan,
        Err(why) => {
            eprintln!("{why}");
            std::process::exit(2);
        }
    };
    plan.dir.push(format!("quorate-bench-kv-{}", std::process::id()));
    std::fs::create_dir_all(&plan.dir).expect("a folder for the databases");
    let run = std::panic::catch_unwind(|| run(&plan));
    std::fs::remove_dir_all(&plan.dir).expect("the folder is ours");
    if run.is_err() {
        std::process::exit(1);
    }
}

fn run(plan: &Plan) {
    if plan.large {
        return ours::large(plan);
    }
    println!(
        "puts, by batch                ours/s      peer/s   ratio   cpu us: ours   peer   worst pause ms: ours   peer"
    );
    for batch in [1, 16, 256] {
        for (name, has_index) in [("redb and a map of keys", true), ("redb alone", false)] {
            puts(plan, batch, name, has_index);
        }
    }
    bare::reads(plan);
    ours::filled(plan);
    println!();
    watches::fan_out(plan);
}

fn puts(plan: &Plan, batch: u64, name: &str, has_index: bool) {
    let mut pairs: Vec<_> = (0..plan.rounds)
        .map(|round| {
            // Neither is always the first.
            if round % 2 == 0 {
                let ours = ours::puts(plan, batch);
                (ours, bare::puts(plan, batch, has_index))
            } else {
                let bare = bare::puts(plan, batch, has_index);
                (ours::puts(plan, batch), bare)
            }
        })
        .collect();
    pairs.sort_by(|a, b| (a.0.per_s / a.1.per_s).total_cmp(&(b.0.per_s / b.1.per_s)));
    let (ours, bare) = &pairs[pairs.len() / 2];
    println!(
        "{batch:>4} {name:<22} {:>9.0} {:>11.0} {:>7.2} {:>14.2} {:>6.2} {:>22.1} {:>6.1}",
        ours.per_s,
        bare.per_s,
        ours.per_s / bare.per_s,
        ours.cpu_us,
        bare.cpu_us,
        ours.worst_ms,
        bare.worst_ms,
    );
}

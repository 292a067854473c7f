//! Clocks and memory.

use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};

/// What a run of puts gives.
#[derive(Clone, Copy, Debug)]
pub struct Puts {
    pub per_s: f64,
    /// CPU time of the whole process for one.
    pub cpu_us: f64,
    /// The longest batch.
    pub worst_ms: f64,
}

/// Wall and CPU time since a moment.
pub struct Watch {
    begun: Instant,
    cpu_s: f64,
}

fn cpu_s() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

impl Watch {
    pub fn start() -> Self {
        Self { begun: Instant::now(), cpu_s: cpu_s() }
    }

    pub fn wall_s(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    pub fn cpu_s(&self) -> f64 {
        cpu_s() - self.cpu_s
    }

    pub fn puts(&self, count: u64, worst_s: f64) -> Puts {
        let count = count as f64;
        Puts {
            per_s: count / self.wall_s(),
            cpu_us: self.cpu_s() * 1e6 / count,
            worst_ms: worst_s * 1e3,
        }
    }

    /// Prints one row of reads.
    pub fn row(&self, name: &str, count: u64) {
        println!(
            "{name:<44} {:>12.0}/s   {:>9.2} us wall   {:>9.2} us cpu",
            count as f64 / self.wall_s(),
            self.wall_s() * 1e6 / count as f64,
            self.cpu_s() * 1e6 / count as f64,
        );
    }
}

/// Bytes of this process in memory; 0 where nobody says.
pub fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// A number for each `n`, scattered below a bound.
pub fn scattered(n: u64, bound: u64) -> u64 {
    let mut x = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x ^= x >> 29;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (x ^ (x >> 32)) % bound
}

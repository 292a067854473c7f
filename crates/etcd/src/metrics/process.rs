//! What the operating system says about this process.

use std::time::{SystemTime, UNIX_EPOCH};

use super::text::{Kind, Page};

/// Ticks per second in `/proc`, which Linux has fixed for all programs.
const TICKS: u64 = 100;

/// Writes what is known. Where there is no `/proc`, that is nothing.
pub(crate) fn write(page: &mut Page) {
    let open = std::fs::read_dir("/proc/self/fd").map(Iterator::count).ok();
    let limit = descriptor_limit();
    if let Some(open) = open {
        page.single("os_fd_used", Kind::Gauge, "File descriptors in use.", open);
        page.single("process_open_fds", Kind::Gauge, "File descriptors in use.", open);
    }
    if let Some(limit) = limit {
        page.single("os_fd_limit", Kind::Gauge, "File descriptors that there may be.", limit);
        page.single("process_max_fds", Kind::Gauge, "File descriptors that there may be.", limit);
    }
    let Some(stat) = Stat::read() else { return };
    page.single(
        "process_cpu_seconds_total",
        Kind::Counter,
        "CPU time of this process, in seconds.",
        stat.cpu_seconds,
    );
    page.single(
        "process_resident_memory_bytes",
        Kind::Gauge,
        "Memory of this process that is in RAM.",
        stat.resident_bytes,
    );
    page.single(
        "process_virtual_memory_bytes",
        Kind::Gauge,
        "Addresses that this process has in use.",
        stat.virtual_bytes,
    );
    if let Some(start) = stat.start_seconds {
        page.single(
            "process_start_time_seconds",
            Kind::Gauge,
            "When this process was started, in seconds since 1970.",
            start,
        );
    }
}

/// How many file descriptors this process may have.
pub(crate) fn descriptor_limit() -> Option<u64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find(|line| line.starts_with("Max open files"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

/// Numbers of `/proc/self/stat`.
pub(crate) struct Stat {
    cpu_seconds: f64,
    /// Memory in RAM.
    pub(crate) resident_bytes: u64,
    /// Addresses in use.
    pub(crate) virtual_bytes: u64,
    start_seconds: Option<f64>,
}

impl Stat {
    /// What the system says now.
    pub(crate) fn read() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/self/stat").ok()?)
    }

    fn parse(stat: &str) -> Option<Self> {
        // The name, in parentheses, may contain anything; the fields after it begin with the third.
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let resident_bytes = std::fs::read_to_string("/proc/self/status")
            .ok()
            .and_then(|status| {
                let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
                line.split_whitespace().nth(1)?.parse::<u64>().ok()
            })
            .map_or(0, |kib| kib * 1024);
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) as f64 / TICKS as f64,
            resident_bytes,
            virtual_bytes: field(23)?,
            start_seconds: boot_seconds().map(|boot| {
                let since_boot = field(22).unwrap_or(0) as f64 / TICKS as f64;
                boot as f64 + since_boot
            }),
        })
    }
}

fn boot_seconds() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let line = stat.lines().find(|line| line.starts_with("btime "))?;
    let boot: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
    (boot <= now).then_some(boot)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_descriptors() {
        let mut page = Page::default();
        write(&mut page);
        let text = page.finish();
        for name in ["process_resident_memory_bytes ", "os_fd_limit ", "process_cpu_seconds_total "]
        {
            assert!(text.contains(&format!("\n{name}")), "{name} is missing in {text}");
        }
    }
}

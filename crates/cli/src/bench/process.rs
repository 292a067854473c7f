//! What processes have used, as Linux tells it.

use std::fs;
use std::time::Duration;

use crate::client::Failure;

/// Clock ticks of the kernel's accounts for users, which are the same on all of Linux's platforms.
const TICKS_PER_SECOND: u64 = 100;

/// CPU time of a process so far, its own and what the kernel did for it.
pub(crate) fn cpu_time(pid: u32) -> Result<Duration, Failure> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).map_err(|why| unreadable(&path, &why))?;
    // The name of the program, in parentheses, may contain anything.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = |field: usize| fields.split_whitespace().nth(field)?.parse::<u64>().ok();
    match (ticks(11), ticks(12)) {
        (Some(user), Some(system)) => {
            Ok(Duration::from_millis((user + system) * 1000 / TICKS_PER_SECOND))
        }
        _ => Err(Failure::File(format!("{path} has no accounts of CPU time"))),
    }
}

/// Memory of a process that is neither swapped out nor shared with the files it came from, in bytes.
pub(crate) fn resident_bytes(pid: u32) -> Result<u64, Failure> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).map_err(|why| unreadable(&path, &why))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok())
        .map(|kib| kib * 1024)
        .ok_or_else(|| Failure::File(format!("{path} does not say how much memory is resident")))
}

fn unreadable(path: &str, why: &std::io::Error) -> Failure {
    Failure::File(format!("{path}: {why}; --pid works on Linux, with processes that run there"))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_something() {
        let pid = std::process::id();
        assert!(cpu_time(pid).is_ok());
        assert!(resident_bytes(pid).is_ok_and(|bytes| bytes > 100_000));
    }

    #[test]
    fn a_process_that_is_gone_is_named() {
        let text = cpu_time(u32::MAX).err().map(|why| why.to_string()).unwrap_or_default();
        assert!(text.contains("/proc/4294967295/stat"), "{text}");
    }
}

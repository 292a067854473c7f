//! Running seeds on a broken build until somebody objects.

use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// A build that says nothing for this long hangs.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// What became of the seeds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// Nobody objected.
    Clean,
    /// Somebody did.
    Objected(Objection),
    /// No verdict in the time that anything may take.
    Hung,
    /// The program itself failed. What it said last.
    Broken(String),
}

/// Who objected, and when.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Objection {
    /// The seed that showed it.
    pub(super) seed: u64,
    /// Virtual time until then.
    pub(super) simulated_us: u64,
    /// The checker's property, or the core's assertion.
    pub(super) by: String,
    /// What was seen.
    pub(super) seen: String,
}

/// Runs `seeds` seeds from `first` on with the simulator `program`.
pub(super) fn run(
    program: &Path,
    first: u64,
    seeds: u64,
    options: &str,
) -> io::Result<(Verdict, Duration)> {
    let began = Instant::now();
    let (first, seeds) = (first.to_string(), seeds.to_string());
    let mut command = Command::new(program);
    command.args(["run", "--first", &first, "--seeds", &seeds, "--jobs", "1"]);
    if !options.is_empty() {
        command.args(["--options", options]);
    }
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let verdict = watch(&mut child)?;
    Ok((verdict, began.elapsed()))
}

fn watch(child: &mut Child) -> io::Result<Verdict> {
    let (said, both) = mpsc::channel();
    let listeners = [
        child.stdout.take().map(|pipe| listen(0, pipe, said.clone())),
        child.stderr.take().map(|pipe| listen(1, pipe, said)),
    ];
    let mut outputs = [String::new(), String::new()];
    let deadline = Instant::now() + PATIENCE;
    for _ in listeners.iter().flatten() {
        let Ok((which, text)) = both.recv_timeout(deadline.duration_since(Instant::now())) else {
            child.kill()?;
            child.wait()?;
            return Ok(Verdict::Hung);
        };
        outputs[which] = text;
    }
    let status = child.wait()?;
    let [stdout, stderr] = outputs;
    if let Some(objection) = stdout.lines().find_map(Objection::parse) {
        return Ok(Verdict::Objected(objection));
    }
    if status.success() {
        return Ok(Verdict::Clean);
    }
    let last = stderr.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    Ok(Verdict::Broken(format!("{status}: {last}")))
}

/// Collects what comes out of a pipe, on a thread of its own: a full pipe would stop the child.
fn listen(
    which: usize,
    mut pipe: impl Read + Send + 'static,
    said: mpsc::Sender<(usize, String)>,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // A pipe that breaks has said what it had to say.
        let _ = pipe.read_to_end(&mut bytes);
        let _ = said.send((which, String::from_utf8_lossy(&bytes).into_owned()));
    })
}

impl Objection {
    /// The line in which `run` says that a seed failed:
    /// `FAILED seed=17 step=123 simulated_us=4567 property="Election Safety" seen="..."`.
    fn parse(line: &str) -> Option<Self> {
        let line = line.strip_prefix("FAILED ")?;
        let number = |name: &str| -> Option<u64> {
            let (_, rest) = line.split_once(name)?;
            rest.split(' ').next()?.parse().ok()
        };
        let (_, rest) = line.split_once("property=\"")?;
        let (property, rest) = rest.split_once('"')?;
        let seen = rest.split_once("seen=\"").map_or("", |(_, seen)| seen);
        let seen = seen.strip_suffix('"').unwrap_or(seen);
        let by = match property {
            "No Panic" => format!("assertion: {seen}"),
            _ => property.to_owned(),
        };
        Some(Self {
            seed: number("seed=")?,
            simulated_us: number("simulated_us=")?,
            by,
            seen: seen.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_a_failed_seed_is_understood() {
        let line = "FAILED seed=17 step=123 simulated_us=4567 property=\"Election Safety\" \
                    seen=\"n1 says \"I lead\"\"";
        let objection = Objection {
            seed: 17,
            simulated_us: 4567,
            by: "Election Safety".to_owned(),
            seen: "n1 says \"I lead\"".to_owned(),
        };
        assert_eq!(Objection::parse(line), Some(objection));
        assert_eq!(Objection::parse("seed 17 failed"), None);
    }

    #[test]
    fn assertions_are_quoted() {
        let line = "FAILED seed=1 step=2 simulated_us=3 property=\"No Panic\" seen=\"a gap\"";
        assert_eq!(Objection::parse(line).unwrap().by, "assertion: a gap");
    }
}

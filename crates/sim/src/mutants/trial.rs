//! Running seeds, or tests, on a broken build until somebody objects.

use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::tree::TestProgram;

/// A build that says nothing for this long hangs.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// The same for the tests of one file, of which none takes long.
const PATIENCE_WITH_TESTS: Duration = Duration::from_secs(3 * 60);

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
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Objection {
    /// The seed that showed it; zero if it was a test.
    pub(super) seed: u64,
    /// Virtual time until then.
    pub(super) simulated_us: u64,
    /// The checker's property, the core's assertion, or the test.
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
    let verdict = match watch(&mut start(&mut command)?, PATIENCE)? {
        None => Verdict::Hung,
        Some(ended) => match ended.stdout.lines().find_map(Objection::parse) {
            Some(objection) => Verdict::Objected(objection),
            None => ended.without_objection(),
        },
    };
    Ok((verdict, began.elapsed()))
}

/// Runs the tests of `programs`, one after the other, until one of them has a test that fails.
pub(super) fn run_tests(programs: &[TestProgram]) -> io::Result<(Verdict, Duration)> {
    let began = Instant::now();
    let mut verdict = Verdict::Clean;
    for program in programs {
        let mut command = Command::new(&program.path);
        command.current_dir(&program.directory).env_remove("QUORATE_LONG");
        verdict = match watch(&mut start(&mut command)?, PATIENCE_WITH_TESTS)? {
            None => Verdict::Hung,
            Some(ended) => match Objection::of_test(&program.name, &ended.stdout) {
                Some(objection) => Verdict::Objected(objection),
                None => match ended.without_objection() {
                    // It ended in the middle of a test.
                    Verdict::Broken(seen) => {
                        let by = format!("tests {}", program.name);
                        Verdict::Objected(Objection { by, seen, ..Objection::default() })
                    }
                    verdict => verdict,
                },
            },
        };
        if verdict != Verdict::Clean {
            break;
        }
    }
    Ok((verdict, began.elapsed()))
}

fn start(command: &mut Command) -> io::Result<Child> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
}

/// What a program has said until its end.
struct Ended {
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

impl Ended {
    fn without_objection(&self) -> Verdict {
        if self.status.success() {
            return Verdict::Clean;
        }
        let lines = self.stderr.lines().rev();
        let last = lines.into_iter().find(|line| !line.trim().is_empty()).unwrap_or_default();
        Verdict::Broken(format!("{}: {last}", self.status))
    }
}

/// Waits for the end of a program. `None` if it has to be ended.
fn watch(child: &mut Child, patience: Duration) -> io::Result<Option<Ended>> {
    let (said, both) = mpsc::channel();
    let listeners = [
        child.stdout.take().map(|pipe| listen(0, pipe, said.clone())),
        child.stderr.take().map(|pipe| listen(1, pipe, said)),
    ];
    let mut outputs = [String::new(), String::new()];
    let deadline = Instant::now() + patience;
    for _ in listeners.iter().flatten() {
        let Ok((which, text)) = both.recv_timeout(deadline.duration_since(Instant::now())) else {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        };
        outputs[which] = text;
    }
    let status = child.wait()?;
    let [stdout, stderr] = outputs;
    Ok(Some(Ended { status, stdout, stderr }))
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

impl Objection {
    /// The first test that failed, of the program with the tests of the file `file`, and what was
    /// said of it.
    fn of_test(file: &str, stdout: &str) -> Option<Self> {
        let mut failed = stdout
            .lines()
            .filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"));
        let name = failed.next()?;
        let more = failed.count();
        let (_, said) = stdout.split_once(&format!("---- {name} stdout ----"))?;
        // A panic says where it is in one line, and why in the next ones.
        let said = said.split_once("panicked at ").map_or("", |(_, rest)| rest);
        let seen = said.lines().nth(1).unwrap_or_default().to_owned();
        let and_more = if more > 0 { format!(" and {more} more") } else { String::new() };
        Some(Self { by: format!("test {file}::{name}{and_more}"), seen, ..Self::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_test_is_understood() {
        let stdout = "\nrunning 3 tests\ntest good ... ok\ntest bad ... FAILED\n\
                      test worse ... FAILED\n\nfailures:\n\n---- bad stdout ----\n\n\
                      thread 'bad' (1) panicked at tests/x.rs:1:2:\nall is lost\nnote: more\n\n\
                      ---- worse stdout ----\nx\n";
        let objection = Objection::of_test("x", stdout).unwrap();
        assert_eq!(objection.by, "test x::bad and 1 more");
        assert_eq!(objection.seen, "all is lost");
        assert_eq!(Objection::of_test("x", "test good ... ok\n"), None);
    }

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

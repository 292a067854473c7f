//! `wal`: looking at the log of a member, without changing anything in it.
//!
//! Everything is opened for reading alone, and nothing is locked. So the log of a running server can be looked at as well;
//! of that one sees what was there at the moment, and the last record may be half written.

use std::fmt;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::{Args, Subcommand};
use quorate_etcd::describe_command;
use quorate_node::sessions;
use quorate_raft::Membership;
use quorate_wal::inspect::{self, SeenEntry, Survey};
use quorate_wal::{OpenError, RealDisk};
use quorate_wire::PayloadKind;
use serde_json::{Value, json};

use crate::client::output::{object, print};
use crate::client::{Common, Failure, Form};
use crate::style::Paint;

/// Where a log may be, from what a user names: the directory of a server, that of a node, that of the log. The innermost
/// comes first, since files around it may have names that those of a log have too.
const PLACES: [&str; 3] = ["member/log", "log", "."];

/// Commands of `wal`.
#[derive(Subcommand, Debug)]
#[command(after_help = "\
DIRECTORY is the data directory of a server, of a node of the library, or that of a log itself. Nothing in it is written or \
locked, so the server may be running; then the end of the log may look torn, which says nothing against it.")]
pub(crate) enum Command {
    /// Show segments and groups, and what a start would find
    List {
        /// The directory
        directory: PathBuf,
    },
    /// Show every record and what its entries say
    Dump(Dump),
    /// Show damage only; the exit code is 1 if there is any
    Verify {
        /// The directory
        directory: PathBuf,
    },
}

/// `wal dump`.
#[derive(Args, Debug)]
pub(crate) struct Dump {
    /// The directory
    directory: PathBuf,
    /// Only entries from this index on
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Only entries up to this index
    #[arg(long, default_value_t = u64::MAX, hide_default_value = true)]
    to: u64,
    /// Show values, too, instead of their sizes
    #[arg(long)]
    values: bool,
    /// Records only, without their entries
    #[arg(long, conflicts_with_all = ["from", "to", "values"])]
    records: bool,
}

/// Carries out a command of `wal`.
pub(crate) fn run(command: Command, common: &Common) -> Result<(), Failure> {
    let form = common.write_out;
    if matches!(form, Form::Fields | Form::Table) {
        return Err(Failure::Input(
            "wal prints no fields and no tables; use -o simple or json".to_owned(),
        ));
    }
    match command {
        Command::List { directory } => {
            let (disk, survey) = survey(&directory)?;
            match form {
                Form::Json => object(&json_of(&disk, &survey)),
                _ => print(survey.to_string().as_bytes()),
            }
        }
        Command::Dump(dump) => dump.run(form),
        Command::Verify { directory } => verify(&directory, form),
    }
}

/// The log in or below a directory.
fn find(directory: &Path) -> Result<RealDisk, Failure> {
    let fails = |why: &dyn fmt::Display| Failure::File(format!("{}: {why}", directory.display()));
    // Whatever is wrong with the directory itself is to be said of it, not of what could be in it.
    std::fs::read_dir(directory).map_err(|why| fails(&why))?;
    for place in PLACES {
        let Ok(disk) = RealDisk::existing(directory.join(place)) else { continue };
        if inspect::is_log(&disk).map_err(|why| fails(&why))? {
            if let Some(process) = disk.holder() {
                eprintln!(
                    "{} process {process} is using this log; what it writes meanwhile may look torn",
                    Paint::Odd.err("note:")
                );
            }
            return Ok(disk);
        }
    }
    Err(fails(
        &"there is no log here; name the data directory of a server, or the directory of a log",
    ))
}

fn survey(directory: &Path) -> Result<(RealDisk, Survey), Failure> {
    let disk = find(directory)?;
    let fails = |why: OpenError| Failure::File(format!("{}: {why}", directory.display()));
    let empty = || OpenError::Empty { directory: directory.display().to_string() };
    let survey = inspect::survey(&disk).and_then(|found| found.ok_or_else(empty)).map_err(fails)?;
    Ok((disk, survey))
}

fn verify(directory: &Path, form: Form) -> Result<(), Failure> {
    let (disk, survey) = survey(directory)?;
    if form == Form::Json {
        object(&json_of(&disk, &survey))?;
    } else {
        let mut text = String::new();
        for note in &survey.notes {
            text.push_str(&format!("{} {note}\n", Paint::Odd.out("note:")));
        }
        for damage in &survey.damage {
            text.push_str(&format!("{} {damage}\n", Paint::Bad.out("DAMAGE:")));
        }
        if survey.damage.is_empty() {
            let (groups, segments) = (survey.groups.len(), survey.segments.len());
            text.push_str(&format!(
                "{groups} groups in {segments} segment files: {}\n",
                Paint::Good.out("no damage")
            ));
        }
        print(text.as_bytes())?;
    }
    if survey.damage.is_empty() { Ok(()) } else { Err(Failure::Said(1)) }
}

fn json_of(disk: &RealDisk, survey: &Survey) -> Value {
    let segments: Vec<Value> = survey
        .segments
        .iter()
        .map(|segment| {
            json!({
                "file": segment.file,
                "size": segment.size,
                "end": segment.end,
                "first_record": segment.first_record,
            })
        })
        .collect();
    let groups: Vec<Value> = survey
        .groups
        .iter()
        .map(|(id, group)| {
            let damaged: Vec<Value> =
                group.damaged.iter().map(|range| json!([range.start().0, range.end().0])).collect();
            json!({
                "group": id.0,
                "term": group.hard_state.term.0,
                "voted_for": group.hard_state.voted_for.map(|node| node.0),
                "commit_index": group.hard_state.commit.0,
                "snapshot_index": group.snapshot.id.index.0,
                "snapshot_term": group.snapshot.id.term.0,
                "last_index": group.last_index.0,
                "damaged": damaged,
            })
        })
        .collect();
    let texts = |items: &mut dyn Iterator<Item = String>| items.collect::<Vec<_>>();
    json!({
        "cluster": survey.identity.cluster.0,
        "node": survey.identity.node.0,
        "incarnation": survey.identity.incarnation.0,
        "in_use_by": disk.holder(),
        "segments": segments,
        "groups": groups,
        "notes": texts(&mut survey.notes.iter().map(ToString::to_string)),
        "damage": texts(&mut survey.damage.iter().map(ToString::to_string)),
    })
}

impl Dump {
    fn run(&self, form: Form) -> Result<(), Failure> {
        let disk = find(&self.directory)?;
        let mut out = Output { stdout: io::BufWriter::new(io::stdout().lock()), is_gone: false };
        let outcome = match form {
            // One object for each entry; what holds them together is for people.
            Form::Json => {
                let mut entries = |seen: SeenEntry<'_>| {
                    if self.wants(&seen) {
                        let _ =
                            fmt::Write::write_fmt(&mut out, format_args!("{}\n", self.json(&seen)));
                    }
                    None
                };
                inspect::dump_entries(&disk, &mut Nowhere, &mut entries)
            }
            _ => {
                let mut entries =
                    |seen: SeenEntry<'_>| self.wants(&seen).then(|| self.describe(&seen));
                inspect::dump_entries(&disk, &mut out, &mut entries)
            }
        };
        outcome.map_err(|why| Failure::File(format!("{}: {why}", self.directory.display())))?;
        // A reader that has seen enough is no error.
        let _ = out.stdout.flush();
        Ok(())
    }

    fn wants(&self, seen: &SeenEntry<'_>) -> bool {
        !self.records && (self.from..=self.to).contains(&seen.head.id.index.0)
    }

    fn describe(&self, seen: &SeenEntry<'_>) -> String {
        let Some(payload) = seen.payload else {
            return format!("DAMAGED, {} bytes", seen.head.payload_len);
        };
        match seen.head.kind {
            PayloadKind::Noop => "begin of a term".to_owned(),
            PayloadKind::Membership => match Membership::from_bytes(payload) {
                Ok(membership) => format!("membership {membership}"),
                Err(why) => format!("{} bytes that are no membership: {why}", payload.len()),
            },
            PayloadKind::Command => self.commands(payload).join(" | "),
        }
    }

    /// What a command says: several may share an entry, and each may belong to a session.
    fn commands(&self, payload: &[u8]) -> Vec<String> {
        let all = match sessions::Command::all_from_bytes(&Bytes::copy_from_slice(payload)) {
            Ok(all) => all,
            Err(why) => return vec![format!("{} bytes that are no command: {why}", payload.len())],
        };
        all.iter()
            .map(|command| match command {
                sessions::Command::Plain(bytes) => describe_command(bytes, self.values),
                sessions::Command::Open { .. } => "open a session".to_owned(),
                sessions::Command::Numbered { session, number, command, .. } => {
                    format!("{session}/{number} {}", describe_command(command, self.values))
                }
                sessions::Command::Close { session } => format!("close session {session}"),
            })
            .collect()
    }

    fn json(&self, seen: &SeenEntry<'_>) -> Value {
        let kind = match seen.head.kind {
            PayloadKind::Noop => "noop",
            PayloadKind::Command => "command",
            PayloadKind::Membership => "membership",
        };
        let says = match (seen.head.kind, seen.payload) {
            (PayloadKind::Command, Some(payload)) => self.commands(payload),
            _ => vec![self.describe(seen)],
        };
        json!({
            "file": seen.file,
            "record": seen.record,
            "group": seen.group.0,
            "index": seen.head.id.index.0,
            "term": seen.head.id.term.0,
            "kind": kind,
            "bytes": seen.head.payload_len,
            "damaged": seen.payload.is_none(),
            "says": says,
        })
    }
}

/// Standard output as a writer of text.
struct Output {
    stdout: io::BufWriter<io::StdoutLock<'static>>,
    is_gone: bool,
}

impl fmt::Write for Output {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.is_gone {
            return Err(fmt::Error);
        }
        self.stdout.write_all(text.as_bytes()).map_err(|_| {
            self.is_gone = true;
            fmt::Error
        })
    }
}

/// Takes any text, and keeps none.
struct Nowhere;

impl fmt::Write for Nowhere {
    fn write_str(&mut self, _text: &str) -> fmt::Result {
        Ok(())
    }
}

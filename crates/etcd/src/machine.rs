//! The store as a replicated state machine, with what belongs to it on every member: watches, leases, members' attributes.
//!
//! Rows that the store keeps for its host begin with a letter: `l` those of the library, `m` attributes of a member, `v` the
//! version of the cluster, `d` the version that it is being taken back to.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use prost::Message;
use quorate::{
    Applied, Batch, DurableStateMachine, Flush, Index, LibraryRow, LogId, Opened, Restore,
    Snapshot, Term,
};
use quorate_kv::{
    Changes, Command, HostRow, Hub, LogPlace, RequestError, Revision, Sink, Store, StoreConfig,
};

use crate::command::{Entry, Reply};
use crate::data::{Attributes, Data};
use crate::proto::host::{self, HostCommand, host_command};

const LIBRARY_ROW: u8 = b'l';
const MEMBER_ROW: u8 = b'm';
const VERSION_ROW: u8 = b'v';
const DOWNGRADE_ROW: u8 = b'd';

/// See the module.
pub(crate) struct Machine {
    data: Arc<Data>,
    path: PathBuf,
    config: StoreConfig,
    opened: Option<Opened>,
}

/// Tells watches what each revision has changed.
struct Told<'a> {
    hub: &'a Hub,
    compacted: bool,
}

impl Sink for Told<'_> {
    fn changed(&mut self, changes: &Changes) {
        self.hub.publish(changes);
    }

    fn compacted(&mut self, revision: Revision) {
        self.hub.compact(revision);
        self.compacted = true;
    }

    fn wants_prev(&self) -> bool {
        self.hub.wants_prev()
    }
}

pub(crate) fn disk_error(why: impl fmt::Display) -> io::Error {
    io::Error::other(format!("the database failed: {why}"))
}

const fn log_id(place: LogPlace) -> LogId {
    LogId::new(Index(place.index), Term(place.term))
}

const fn log_place(id: LogId) -> LogPlace {
    LogPlace { index: id.index.0, term: id.term.0 }
}

fn row(kind: u8, key: &[u8]) -> Vec<u8> {
    [&[kind][..], key].concat()
}

fn library_rows(rows: &[LibraryRow]) -> impl Iterator<Item = HostRow> + '_ {
    rows.iter().map(|LibraryRow { key, value }| (row(LIBRARY_ROW, key), value.clone()))
}

/// Divides the host's rows into the library's and the server's.
fn read_rows(rows: Vec<(Vec<u8>, Vec<u8>)>) -> io::Result<(Vec<LibraryRow>, Attributes)> {
    let (mut library, mut attributes) = (Vec::new(), Attributes::default());
    let bad =
        |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{what} in the database"));
    for (key, value) in rows {
        match key.split_first() {
            Some((&LIBRARY_ROW, key)) => {
                library.push(LibraryRow { key: key.to_vec(), value: Some(value) });
            }
            Some((&MEMBER_ROW, _)) => {
                let member = host::Attributes::decode(&*value)
                    .map_err(|_| bad("a damaged description of a member"))?;
                attributes.members.insert(member.member, member);
            }
            Some((&VERSION_ROW, _)) => {
                attributes.cluster_version = Some(String::from_utf8_lossy(&value).into_owned());
            }
            Some((&DOWNGRADE_ROW, _)) => {
                attributes.downgrade = Some(String::from_utf8_lossy(&value).into_owned());
            }
            _ => return Err(bad("a row of a kind that this build does not know")),
        }
    }
    Ok((library, attributes))
}

impl Machine {
    /// Opens the store in a file.
    pub(crate) fn open(
        path: PathBuf,
        config: StoreConfig,
        data: impl FnOnce(Store, Attributes) -> Data,
    ) -> io::Result<(Self, Arc<Data>)> {
        let (store, opened) = Store::open_file(&path, config).map_err(disk_error)?;
        let (library, attributes) = read_rows(opened.rows)?;
        let data = Arc::new(data(store, attributes));
        let opened = Some(Opened { applied: log_id(opened.applied), library });
        let machine = Self { data: Arc::clone(&data), path, config, opened };
        Ok((machine, data))
    }

    /// Carries out one of the server's own commands.
    fn carry_out(&self, command: HostCommand, rows: &mut Vec<HostRow>) {
        match command.command {
            Some(host_command::Command::Attributes(attributes)) => {
                let key = row(MEMBER_ROW, &attributes.member.to_be_bytes());
                rows.push((key, Some(attributes.encode_to_vec())));
                self.data.change_attributes(|all| {
                    all.members.insert(attributes.member, attributes);
                });
            }
            Some(host_command::Command::ClusterVersion(version)) => {
                rows.push((vec![VERSION_ROW], Some(version.clone().into_bytes())));
                self.data.change_attributes(|all| all.cluster_version = Some(version));
            }
            Some(host_command::Command::Downgrade(version)) => {
                let target = (!version.is_empty()).then_some(version);
                rows.push((vec![DOWNGRADE_ROW], target.clone().map(String::into_bytes)));
                self.data.change_attributes(|all| all.downgrade = target);
            }
            // One that a newer member has proposed: nothing here depends on it.
            None => {}
        }
    }
}

/// The replies to a run of the store's commands.
///
/// A write that the quota has no room for is carried out, as everywhere: members differ in how much room they have, and must
/// not differ in what they hold. Whoever asked is told that there is no room, and the alarm stops what follows.
fn apply_run(
    data: &Data,
    store: &mut Store,
    run: &mut Vec<Command>,
    told: &mut Told<'_>,
    batch: &mut Batch<'_, Entry, Reply>,
) -> io::Result<bool> {
    if run.is_empty() {
        return Ok(false);
    }
    let alarms = run.iter().any(|command| matches!(command, Command::Alarm(_)));
    let cost: u64 = run.iter().map(|command| command.cost_bytes() as u64).sum();
    let is_close = cost > 0 && data.exceeds_quota(cost);
    let began = Instant::now();
    let replies = store.apply(run, told).map_err(disk_error)?;
    let each = began.elapsed() / u32::try_from(run.len()).unwrap_or(u32::MAX);
    let mut cost = 0;
    for (command, reply) in run.iter().zip(replies) {
        data.metrics.carried_out(command, &reply, each);
        if is_close && reply.is_ok() && command.cost_bytes() > 0 {
            cost += command.cost_bytes() as u64;
            if data.exceeds_quota(cost) {
                data.went_over_quota();
                batch.reply(Reply::of(Err(RequestError::NoSpace)));
                continue;
            }
        }
        batch.reply(Reply::of(reply));
    }
    run.clear();
    Ok(alarms)
}

impl DurableStateMachine for Machine {
    type Command = Entry;
    type Reply = Reply;

    fn open(&mut self) -> io::Result<Opened> {
        self.opened.take().ok_or_else(|| io::Error::other("opened twice"))
    }

    fn apply(&mut self, mut batch: Batch<'_, Entry, Reply>) -> io::Result<Applied> {
        let began = Instant::now();
        let entries = batch.take_commands();
        let count = entries.len();
        let mut rows = Vec::new();
        let mut run = Vec::with_capacity(entries.len());
        let mut told = Told { hub: &self.data.hub, compacted: false };
        let mut store = self.data.store();
        if store.must_flush() {
            drop(store);
            self.data.flush_now()?;
            store = self.data.store();
        }
        let mut alarms = false;
        for entry in entries {
            match entry {
                Entry::Store(command) => run.push(command),
                Entry::Encoded(bytes) => match Command::decode(&bytes) {
                    Ok(command) => run.push(command),
                    Err(why) => return Err(io::Error::other(why)),
                },
                Entry::Host(command) => {
                    alarms |= apply_run(&self.data, &mut store, &mut run, &mut told, &mut batch)?;
                    self.carry_out(command, &mut rows);
                    batch.reply(Reply::done());
                }
            }
        }
        alarms |= apply_run(&self.data, &mut store, &mut run, &mut told, &mut batch)?;
        let applied = batch.finish();
        let library = library_rows(applied.library());
        store.finish(log_place(applied.at()), library.chain(rows));
        let compacted = told.compacted;
        self.data.applied(&mut store, log_place(applied.at()), compacted, alarms);
        self.data.metrics.applied(count, began.elapsed());
        Ok(applied)
    }

    fn flush(&mut self) -> io::Result<Flush> {
        self.data.check()?;
        if !self.data.is_flush_due() {
            return Ok(Flush::Done(Index(self.data.reader().durable().index)));
        }
        match self.data.begin_flush() {
            Err(place) => Ok(Flush::Done(Index(place.index))),
            Ok(flush) => {
                let data = Arc::clone(&self.data);
                Ok(Flush::job(move || data.end_flush(flush).map(|place| Index(place.index))))
            }
        }
    }

    fn snapshot(&self) -> io::Result<Snapshot> {
        self.data.flush_now()?;
        let snapshot = self.data.reader().snapshot();
        let metrics = Arc::clone(&self.data.metrics);
        Ok(Snapshot::new(move |out| {
            let began = Instant::now();
            let written = snapshot.write_to(out).map(drop);
            metrics.snapshots.observe(began.elapsed());
            written.map_err(|why| io::Error::other(why.to_string()))
        }))
    }

    fn restore(&mut self, restore: Restore<'_>) -> io::Result<()> {
        let data = Arc::clone(&self.data);
        let _alone = data.keep_file();
        let _under_way = data.metrics.restoring.begin();
        self.data.wait_for_flush();
        let Restore { at, library, reader } = restore;
        let mut store = self.data.store();
        self.data.demote(&mut store);
        quorate_kv::restore_file(reader, &self.path, self.config.cache_bytes)
            .map_err(|why| io::Error::other(why.to_string()))?;
        let (new, opened) = Store::open_file(&self.path, self.config).map_err(disk_error)?;
        let (stale, attributes) = read_rows(opened.rows)?;
        *store = new;
        // The sender's rows of the library are among the others; those that came beside are the ones that count.
        let mut rows: Vec<HostRow> =
            stale.into_iter().map(|row_of| (row(LIBRARY_ROW, &row_of.key), None)).collect();
        rows.extend(library_rows(&library));
        store.finish(log_place(at), rows);
        if let Some(flush) = store.begin_flush() {
            flush.write().map_err(disk_error)?;
        }
        self.data.replaced(&mut store, attributes);
        Ok(())
    }
}

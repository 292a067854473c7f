//! State machines that keep their data on disk.

use std::fmt;
use std::io::{self, Read};

use quorate_node::sessions::{SessionId, Sessions};
use quorate_raft::{Index, LogId};

use crate::codec::Codec;
use crate::machine::Snapshot;

/// A state machine that keeps its data on disk, in a database with transactions.
///
/// The rules of [`StateMachine`](crate::StateMachine) hold here too. What differs: after a restart
/// the data are there, and only the log behind them is applied. So the data must say how far they
/// are, and must hold what the library itself has to remember (the sessions), *in the same
/// transaction*: else a crash between the two would apply a command twice, or forget that it was
/// applied.
///
/// ```
/// # use std::collections::BTreeMap;
/// # use std::io::{self, Read};
/// use quorate::{Applied, Batch, DurableStateMachine, Flush, LibraryRow, Opened, Restore, Snapshot};
///
/// # #[derive(Clone, Default)]
/// # struct Tx(BTreeMap<Vec<u8>, Vec<u8>>, BTreeMap<String, u64>, Opened);
/// # #[derive(Default)]
/// # struct Database(Tx);
/// # impl Database {
/// #     fn begin(&self) -> Tx { self.0.clone() }
/// #     fn commit(&mut self, tx: Tx) -> io::Result<()> { self.0 = tx; Ok(()) }
/// # }
/// struct Words(Database);
///
/// impl DurableStateMachine for Words {
///     type Command = String; // a word to count
///     type Reply = u64; // how often it was seen
///
///     fn open(&mut self) -> io::Result<Opened> {
///         Ok(self.0.begin().2) // from where `apply` has put it
///     }
///
///     fn apply(&mut self, mut batch: Batch<'_, String, u64>) -> io::Result<Applied> {
///         let mut tx = self.0.begin();
///         for word in batch.take_commands() {
///             let count = tx.1.entry(word).or_default();
///             *count += 1;
///             batch.reply(*count);
///         }
///         let applied = batch.finish();
///         tx.2.applied = applied.at();
///         for LibraryRow { key, value } in applied.library() {
///             tx.2.library.retain(|row| row.key != *key);
///             tx.2.library.extend(value.as_ref().map(|_| LibraryRow { key: key.clone(), value: value.clone() }));
///         }
///         self.0.commit(tx)?;
///         Ok(applied)
///     }
///
///     fn flush(&mut self) -> io::Result<Flush> {
///         Ok(Flush::Done(self.0.begin().2.applied.index)) // whatever is on disk by now
///     }
///
///     fn snapshot(&self) -> io::Result<Snapshot> {
///         Ok(Snapshot::of(self.0.begin().1))
///     }
///
///     fn restore(&mut self, restore: Restore<'_>) -> io::Result<()> {
///         let data = quorate::read_snapshot(restore.reader)?;
///         let opened = Opened { applied: restore.at, library: restore.library };
///         self.0.commit(Tx(BTreeMap::new(), data, opened))
///     }
/// }
/// ```
pub trait DurableStateMachine: Send + Sync + 'static {
    /// What is proposed and replicated.
    type Command: Codec;

    /// What the proposer gets back.
    type Reply: Codec;

    /// Says how far the data are, and gives back the library's rows. Called once, before anything
    /// else. A new database has applied nothing: [`Opened::default`].
    ///
    /// # Errors
    ///
    /// When the data cannot be read; the node does not start.
    fn open(&mut self) -> io::Result<Opened>;

    /// Carries out committed commands, one after another, and stores what they do together with
    /// [`Applied::at`] and [`Applied::library`] in one transaction. It need not be durable when this
    /// returns, only all or nothing: see [`flush`](Self::flush).
    ///
    /// # Errors
    ///
    /// When the database fails. The node stops; a command's own failure is a reply.
    fn apply(&mut self, batch: Batch<'_, Self::Command, Self::Reply>) -> io::Result<Applied>;

    /// Makes what was applied durable, and says up to where it is; or says what is left to do for
    /// that, while `apply` goes on. The log is compacted only below that. Called 200 ms after
    /// something was applied, and again as long as not everything is durable; a machine that has
    /// little to write may put it off and say how far it is. Never called while `apply` runs, and
    /// not again before the [job](Flush::Job) of the last time is done.
    ///
    /// # Errors
    ///
    /// When the database fails. The node stops.
    fn flush(&mut self) -> io::Result<Flush>;

    /// The data as they are now, without the library's rows; see
    /// [`StateMachine::snapshot`](crate::StateMachine::snapshot).
    ///
    /// # Errors
    ///
    /// When the database fails. The node stops.
    fn snapshot(&self) -> io::Result<Snapshot>;

    /// Replaces all data by those of a snapshot, and the library's rows by the given ones, in one
    /// transaction or in any way that a crash leaves either the old or the new ones. Durable when
    /// it returns.
    ///
    /// # Errors
    ///
    /// When the database fails or the snapshot cannot be read. The node stops.
    fn restore(&mut self, restore: Restore<'_>) -> io::Result<()>;
}

/// How far a [flush](DurableStateMachine::flush) is.
pub enum Flush {
    /// Everything up to here is durable.
    Done(Index),
    /// What takes long, most often a commit of the database with its sync: run on a thread of its
    /// own while commands are applied, but never beside [`restore`](DurableStateMachine::restore) or
    /// another flush. Gives the index up to which everything is durable then; an error stops the
    /// node.
    Job(FlushJob),
}

/// The second half of a [`Flush`].
pub type FlushJob = Box<dyn FnOnce() -> io::Result<Index> + Send>;

impl Flush {
    /// A flush that `job` completes.
    pub fn job(job: impl FnOnce() -> io::Result<Index> + Send + 'static) -> Self {
        Self::Job(Box::new(job))
    }
}

impl fmt::Debug for Flush {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(index) => f.debug_tuple("Done").field(index).finish(),
            Self::Job(_) => f.debug_tuple("Job").finish_non_exhaustive(),
        }
    }
}

/// A row that the library keeps in a durable state machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LibraryRow {
    /// Names the row.
    pub key: Vec<u8>,
    /// What it says; `None`: the row is to be deleted.
    pub value: Option<Vec<u8>>,
}

/// What a durable state machine holds when it is opened.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Opened {
    /// The last [`Applied::at`] or [`Restore::at`] that was stored.
    pub applied: LogId,
    /// The library's rows, in any order.
    pub library: Vec<LibraryRow>,
}

/// Commands to apply in one transaction.
pub struct Batch<'a, C, R> {
    commands: Vec<C>,
    expected: usize,
    last: LogId,
    replies: Vec<R>,
    encode: &'a mut dyn FnMut(Vec<R>) -> Vec<LibraryRow>,
}

impl<'a, C, R> Batch<'a, C, R> {
    pub(crate) fn new(
        commands: Vec<C>,
        last: LogId,
        encode: &'a mut dyn FnMut(Vec<R>) -> Vec<LibraryRow>,
    ) -> Self {
        let expected = commands.len();
        Self { commands, expected, last, replies: Vec::with_capacity(expected), encode }
    }

    /// The commands, in order. There may be none: then only the place in the log has moved.
    pub fn take_commands(&mut self) -> Vec<C> {
        std::mem::take(&mut self.commands)
    }

    /// The entry after which the data stand when the batch is applied.
    #[must_use]
    pub const fn at(&self) -> LogId {
        self.last
    }

    /// The reply to the next command that has none yet.
    pub fn reply(&mut self, reply: R) {
        self.replies.push(reply);
    }

    /// All commands have their replies: says what else goes into the transaction. The library's
    /// rows depend on the replies (they are kept for clients that ask again), so this comes after
    /// the commands.
    ///
    /// # Panics
    ///
    /// If there is not one reply for each command.
    #[must_use = "it has what must be stored in the same transaction"]
    pub fn finish(self) -> Applied {
        assert_eq!(self.replies.len(), self.expected, "one reply to each command, in order");
        let library = (self.encode)(self.replies);
        Applied { at: self.last, library }
    }
}

impl<C, R> fmt::Debug for Batch<'_, C, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (commands, last) = (self.expected, self.last);
        f.debug_struct("Batch").field("commands", &commands).field("last", &last).finish()
    }
}

/// What goes into the transaction of a batch besides what the commands do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Applied {
    at: LogId,
    library: Vec<LibraryRow>,
}

impl Applied {
    /// How far the data are then.
    #[must_use]
    pub const fn at(&self) -> LogId {
        self.at
    }

    /// Rows to insert, replace or delete.
    #[must_use]
    pub fn library(&self) -> &[LibraryRow] {
        &self.library
    }
}

/// A snapshot to restore from.
pub struct Restore<'a> {
    /// How far the data are then.
    pub at: LogId,
    /// The library's rows, in place of all that are there.
    pub library: Vec<LibraryRow>,
    /// What [`DurableStateMachine::snapshot`] has written.
    pub reader: &'a mut dyn Read,
}

impl fmt::Debug for Restore<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Restore").field("at", &self.at).finish_non_exhaustive()
    }
}

// Rows of the table of sessions. The first byte leaves room for other kinds.

const SESSION_ROW: u8 = b's';

fn session_key(id: SessionId) -> Vec<u8> {
    let mut key = vec![SESSION_ROW];
    key.extend_from_slice(&id.0.to_be_bytes());
    key
}

pub(crate) fn changed_rows(sessions: &mut Sessions) -> Vec<LibraryRow> {
    let row = |(id, value)| LibraryRow { key: session_key(id), value };
    sessions.take_changes().into_iter().map(row).collect()
}

pub(crate) fn all_rows(sessions: &Sessions) -> Vec<LibraryRow> {
    let row = |(id, value)| LibraryRow { key: session_key(id), value: Some(value) };
    sessions.rows().into_iter().map(row).collect()
}

pub(crate) fn sessions_of(rows: Vec<LibraryRow>) -> io::Result<Sessions> {
    let bad = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let mut table = Vec::with_capacity(rows.len());
    for LibraryRow { key, value } in rows {
        let Some(value) = value else { continue };
        match key.split_first() {
            Some((&SESSION_ROW, id)) if id.len() == 8 => {
                let id = id.try_into().map(u64::from_be_bytes).unwrap_or_default();
                table.push((SessionId(id), value));
            }
            _ => return Err(bad("a row of the library that it has not written".to_owned())),
        }
    }
    Sessions::from_rows(table).map_err(|why| bad(format!("the table of sessions: {why}")))
}

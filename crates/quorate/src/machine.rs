//! The state machine that you write.

use std::fmt;
use std::io::{self, Read, Write};

use crate::codec::Codec;

/// What is replicated: your data, and what commands do to it.
///
/// Three methods. The library calls [`apply`](Self::apply) with the same commands in the same order
/// on every member, so every member comes to the same data and the same replies.
///
/// ```
/// use std::io::{self, Read};
/// use quorate::{Snapshot, StateMachine};
///
/// #[derive(Default)]
/// struct Counter(u64);
///
/// impl StateMachine for Counter {
///     type Command = u64; // how much to add
///     type Reply = u64; // the sum
///
///     fn apply(&mut self, commands: Vec<u64>) -> Vec<u64> {
///         commands.into_iter().map(|add| { self.0 += add; self.0 }).collect()
///     }
///
///     fn snapshot(&self) -> Snapshot {
///         Snapshot::of(self.0)
///     }
///
///     fn restore(&mut self, snapshot: &mut dyn Read) -> io::Result<()> {
///         self.0 = quorate::read_snapshot(snapshot)?;
///         Ok(())
///     }
/// }
/// # quorate::testing::check_state_machine(Counter::default, vec![1, 2, 3, 4]);
/// ```
///
/// # Determinism
///
/// Members agree only if `apply` depends on nothing but the data and the commands:
///
/// * no clock, no random numbers, no environment: decide such things *before* you propose, and put
///   them into the command;
/// * no iteration over a `HashMap` or `HashSet` whose order can show in replies or snapshots; use a
///   `BTreeMap`;
/// * no floating-point arithmetic whose result differs between platforms, if members run on
///   different ones;
/// * a command that cannot be carried out (no such account) is not an error of `apply` but a
///   *reply*, the same on every member;
/// * how commands are cut into batches means nothing: a batch is one command after another;
/// * software of different versions, during a rolling upgrade, does the same with the same command.
///
/// [`testing::check_state_machine`](crate::testing::check_state_machine) finds most violations.
///
/// # When it panics
///
/// A panic in `apply`, `snapshot` or `restore` stops this node with
/// [`StopReason::Panicked`](crate::StopReason), because nobody knows what the data are then. The data
/// directory stays as it was, so fix the bug and start again. As the other members are given the
/// same command, they most likely panic too: validate commands before you propose them.
///
/// # Durability
///
/// The library keeps the log and, from time to time, a snapshot. After a restart it restores the
/// latest snapshot and applies the log behind it. So this trait is for data that fit in memory. A
/// machine that keeps its own data on disk implements
/// [`DurableStateMachine`](crate::DurableStateMachine).
pub trait StateMachine: Send + Sync + 'static {
    /// What is proposed and replicated.
    type Command: Codec;

    /// What the proposer gets back.
    type Reply: Codec;

    /// Carries out committed commands, one after another, and gives back one reply to each, in
    /// their order.
    fn apply(&mut self, commands: Vec<Self::Command>) -> Vec<Self::Reply>;

    /// The data as they are now, in a form that is written later, on another thread, while `apply`
    /// goes on. Make this call fast: clone an `Arc`, an immutable map, or, if the data are small,
    /// everything.
    fn snapshot(&self) -> Snapshot;

    /// Replaces all data by those of a snapshot that this type has written, here or on another
    /// member.
    ///
    /// # Errors
    ///
    /// When it cannot be read. The node then stops: its data are neither the old nor the new ones.
    fn restore(&mut self, snapshot: &mut dyn Read) -> io::Result<()>;
}

/// A consistent view of a state machine's data, to be written later.
pub struct Snapshot(Box<Writes>);

type Writes = dyn FnOnce(&mut dyn Write) -> io::Result<()> + Send;

impl Snapshot {
    /// What `write` writes. It runs once, on a thread of its own, and may take its time.
    pub fn new(write: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static) -> Self {
        Self(Box::new(write))
    }

    /// The serialised form of `value`, made when it is written. Read it back with
    /// [`read_snapshot`].
    #[cfg(feature = "postcard")]
    pub fn of(value: impl serde::Serialize + Send + 'static) -> Self {
        Self::new(move |out| postcard::to_io(&value, out).map(|_| ()).map_err(io::Error::other))
    }

    /// Bytes that are there already.
    #[must_use]
    pub fn from_bytes(bytes: impl AsRef<[u8]> + Send + 'static) -> Self {
        Self::new(move |out| out.write_all(bytes.as_ref()))
    }

    /// Writes it.
    ///
    /// # Errors
    ///
    /// When `out` or the maker of the snapshot says so.
    pub fn write_to(self, out: &mut dyn Write) -> io::Result<()> {
        (self.0)(out)
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").finish_non_exhaustive()
    }
}

/// Reads what [`Snapshot::of`] wrote.
///
/// # Errors
///
/// When it cannot be read, or is something else.
#[cfg(feature = "postcard")]
pub fn read_snapshot<T: serde::de::DeserializeOwned>(snapshot: &mut dyn Read) -> io::Result<T> {
    let mut bytes = Vec::new();
    snapshot.read_to_end(&mut bytes)?;
    match postcard::take_from_bytes(&bytes) {
        Ok((value, [])) => Ok(value),
        Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "bytes left over")),
        Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
    }
}

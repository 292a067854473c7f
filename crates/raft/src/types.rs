//! The plain values that everything else is made of.
//!
//! Each is a newtype: a function that takes two bare `u64` is a bug waiting to be called with its
//! arguments swapped.

use core::fmt;

/// Defines a newtype over `u64` that prints as the number itself.
macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

number! {
    /// A period with at most one leader; Raft's logical clock (§5.1). Zero is before any election.
    Term
}

number! {
    /// A position in the log. The first entry has index 1; zero means "before the first" (§5.3).
    Index
}

number! {
    /// The name of a server, unique in its cluster for all time: a removed or wiped server comes
    /// back under a new one. Never zero.
    NodeId
}

number! {
    /// One Raft group among several that share hosts, connections and a log.
    GroupId
}

/// The cluster that a message belongs to; messages of another one are refused. Most are made of a name
/// by a hash, so they print in hexadecimal, everywhere.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ClusterId(pub u64);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0, f)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterId({self})")
    }
}

number! {
    /// A random number made together with a data directory. It tells a server from a wiped one
    /// that claims the same [`NodeId`], and so has forgotten its votes and acknowledgements.
    Incarnation
}

number! {
    /// Numbers the effects that go to storage, in the order in which they must become durable.
    Seq
}

impl Term {
    /// The largest term. A correct cluster never comes near, and a message that names it, or a
    /// larger one, is refused, so that arithmetic on terms cannot overflow.
    pub const MAX: Self = Self(u64::MAX >> 1);

    /// The term after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Index {
    /// Before the first entry.
    pub const ZERO: Self = Self(0);
    /// The largest index that is accepted from a peer; see [`Term::MAX`].
    pub const MAX: Self = Self(u64::MAX >> 1);

    /// The index after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The index before this one; zero stays zero.
    #[must_use]
    pub const fn prev(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl Seq {
    /// The number after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Names an entry: its index and the term of the leader that made it. Two logs that hold an entry
/// with the same `LogId` are identical up to it (Log Matching, §5.3).
///
/// Prints as `index@term`. The order is the one of §5.4.1, by which a voter judges whose log is
/// more up to date: the later term wins, and of equal terms the higher index.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct LogId {
    /// Position in the log.
    pub index: Index,
    /// Term in which a leader created the entry.
    pub term: Term,
}

impl LogId {
    /// Before the first entry of every log.
    pub const ZERO: Self = Self { index: Index(0), term: Term(0) };

    /// The entry at `index` that was made in `term`.
    #[must_use]
    pub const fn new(index: Index, term: Term) -> Self {
        Self { index, term }
    }
}

impl Ord for LogId {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        (self.term, self.index).cmp(&(other.term, other.index))
    }
}

impl PartialOrd for LogId {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A moment, in microseconds from an origin that the host chooses. It is given with every input
/// and must never go back; only differences matter, and those of different nodes are never
/// compared except by the drift check of leases.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(pub u64);

impl Time {
    /// This moment, `us` microseconds later (saturating).
    #[must_use]
    pub const fn after(self, us: u64) -> Self {
        Self(self.0.saturating_add(us))
    }

    /// Microseconds from `earlier` to this moment; zero if `earlier` is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}ms", self.0 / 1000, self.0 % 1000)
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Names one attempt of something that is answered over the network (a read, a pre-vote round).
///
/// It is never used twice: `boot` is drawn anew each time the process starts, so that an answer
/// to the previous life is not taken for one to this, and `count` grows with every attempt, so
/// that an answer to an attempt that was given up is not taken for one to its successor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct AttemptId {
    /// The nonce of this life of the process, see [`Recovered::boot_nonce`](crate::Recovered).
    pub boot: u64,
    /// Counts the attempts of this life.
    pub count: u64,
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{}", self.boot & 0xffff, self.count)
    }
}

/// What the host calls one of its requests (a proposal, read, change, transfer or campaign); the
/// core only gives it back in the [`Answer`](crate::Answer).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct RequestId(pub u64);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

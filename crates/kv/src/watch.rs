//! Watches: who wants to know of which changes, and how far each has been told.
//!
//! A [`Hub`] belongs to one replica. Whoever applies commands tells it what each revision changed ([`Hub::publish`]);
//! clients open a [`WatchStream`] each, with any number of watchers on it. A watcher is in one of two places:
//!
//! ```text
//!              caught up with the newest revision
//!   behind ──────────────────────────────────────► synced
//!     ▲                                               │
//!     └───────────────────────────────────────────────┘ the stream is full, or a snapshot was installed
//! ```
//!
//! * **Synced** watchers are in an index by key and by interval. `publish` finds those that an event concerns, and puts
//!   the event, shared by all, into the queues of their streams.
//! * Those **behind** have a revision from which they are owed events. [`Hub::catch_up`] reads history for some hundred of
//!   them at a time, without holding the lock that `publish` needs, until they have caught up; or ends them, if what they
//!   are owed has been compacted.
//!
//! What follows from this: a watcher gets each event that concerns it exactly once, in order, and all events of a revision
//! in one response. A stream that is not read holds a bounded number of responses ([`WATCH_RESPONSES_MAX`],
//! [`WATCH_BYTES_MAX`]); what does not fit makes its watchers fall behind, and costs nobody else anything.
//!
//! Nothing here starts threads or knows a clock or an async runtime: streams take a [`Waker`](core::task::Waker), the time
//! of [`Hub::tick`] is a value, and the host decides who calls `catch_up`.

mod catch_up;
mod hub;
mod index;
mod intervals;
mod progress;
mod queue;
mod requests;
mod response;
mod state;
mod variants;

pub use catch_up::{WATCH_ROUND_MAX, WATCH_WINDOW_BYTES_MAX, WATCH_WINDOW_REVISIONS_MAX};
pub use hub::{Full, Hub, WatchConfig, WatchStream};
pub use queue::{WATCH_ANSWERS_MAX, WATCH_BYTES_MAX, WATCH_RESPONSES_MAX};
pub use response::{Events, WatchCreate, WatchId, WatchRequest, WatchResponse};
pub use state::WATCHERS_MAX;

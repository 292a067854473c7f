//! What clients ask of a stream, and what it answers.

use core::ops::{Deref, Range};
use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::{Event, KeyValue, LeaseId, Revision};

/// Number of a watcher within its stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatchId(pub i64);

impl WatchId {
    /// The id of answers that concern no watcher, or one that was not created.
    pub const NONE: Self = Self(-1);
}

/// A wish to watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchCreate {
    /// First key; empty: the first of all keys.
    pub key: Bytes,
    /// Empty: the one key; one zero byte: every key from `key` on; else `[key, range_end)`.
    pub range_end: Bytes,
    /// First revision of interest; 0: whatever comes from now on.
    pub start_revision: Revision,
    /// The wanted id; 0: the next free one.
    pub watch_id: WatchId,
    /// Leave puts out.
    pub no_put: bool,
    /// Leave deletes out.
    pub no_delete: bool,
    /// Give the former pairs, too.
    pub prev_kv: bool,
    /// Tell from time to time how far the watcher is, if nothing else does.
    pub progress_notify: bool,
    /// Split large responses.
    pub fragment: bool,
}

/// A request to a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchRequest {
    /// Begin to watch.
    Create(WatchCreate),
    /// End a watcher.
    Cancel(WatchId),
    /// Tell how far the stream is.
    Progress,
    /// Answer a wish to watch with this reason. For those who check permissions.
    Refuse(Cow<'static, str>),
}

/// An answer, or news.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchResponse {
    /// Whom it concerns; [`WatchId::NONE`] for the whole stream, and for what was not created.
    pub watch_id: WatchId,
    /// Revision of the header; 0 when compaction has ended the watcher.
    pub revision: Revision,
    /// Answer to a create request.
    pub created: bool,
    /// The watcher has ended, or was never created: no events follow.
    pub canceled: bool,
    /// The compact revision, if that is why it ended.
    pub compact_revision: Option<Revision>,
    /// Why it was not created.
    pub cancel_reason: Option<Cow<'static, str>>,
    /// More of the same response follows.
    pub fragment: bool,
    /// What happened, in order.
    pub events: Events,
}

/// Events that several responses share, and what they are on the wire once somebody has sent them.
#[derive(Debug, Default)]
pub(super) struct Carried {
    pub(super) events: Arc<[Event]>,
    encoded: OnceLock<Vec<u8>>,
}

impl From<Arc<[Event]>> for Carried {
    fn from(events: Arc<[Event]>) -> Self {
        Self { events, encoded: OnceLock::new() }
    }
}

/// Events of a response. Responses that say the same share them.
#[derive(Clone, Debug, Default)]
pub struct Events {
    all: Arc<Carried>,
    part: Range<usize>,
}

impl Events {
    pub(super) fn part(all: &Arc<Carried>, part: Range<usize>) -> Self {
        Self { all: Arc::clone(all), part }
    }

    /// These events in the form in which they are sent. All responses that carry the same events share what the first of
    /// them has made, so whatever `encode` does must depend on nothing else. It takes about as much memory as keys and
    /// values, until the last of these responses is gone.
    pub fn encoded(&self, encode: impl FnOnce(&[Event]) -> Vec<u8>) -> Cow<'_, [u8]> {
        if self.part.len() == self.all.events.len() {
            Cow::Borrowed(self.all.encoded.get_or_init(|| encode(&self.all.events)))
        } else {
            Cow::Owned(encode(self))
        }
    }
}

impl From<Arc<[Event]>> for Events {
    fn from(all: Arc<[Event]>) -> Self {
        let part = 0..all.len();
        Self { all: Arc::new(all.into()), part }
    }
}

impl Deref for Events {
    type Target = [Event];

    fn deref(&self) -> &[Event] {
        &self.all.events[self.part.clone()]
    }
}

impl PartialEq for Events {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Events {}

/// Bytes that everything but the events takes in a response on the wire, generously.
const RESPONSE_BYTES: usize = 96;

/// Bytes of events on the wire, each with its tag and length.
pub(super) fn events_bytes(events: &[Event]) -> usize {
    events.iter().map(event_bytes).sum()
}

pub(super) fn event_bytes(event: &Event) -> usize {
    let prev = event.prev.as_ref().map_or(0, |prev| field(pair_bytes(prev)));
    let kind = match event.kind {
        crate::EventKind::Put => 0,
        crate::EventKind::Delete => 2,
    };
    field(kind + field(pair_bytes(&event.kv)) + prev)
}

fn pair_bytes(kv: &KeyValue) -> usize {
    let bytes = |bytes: &Bytes| if bytes.is_empty() { 0 } else { field(bytes.len()) };
    let number =
        |number: i64| if number == 0 { 0 } else { 1 + varint_bytes(number.cast_unsigned()) };
    bytes(&kv.key)
        + bytes(&kv.value)
        + number(kv.create_revision.0)
        + number(kv.mod_revision.0)
        + number(kv.version)
        + number(kv.lease.map_or(0, |LeaseId(id)| id))
}

/// A tag of one byte, a length, and the contents.
fn field(bytes: usize) -> usize {
    1 + varint_bytes(bytes as u64) + bytes
}

fn varint_bytes(number: u64) -> usize {
    (64 - (number | 1).leading_zeros() as usize).div_ceil(7)
}

/// How many of the events go into the next fragment: as many as stay below the limit, and at least one.
pub(super) fn fragment_len(events: &[Event], bytes_max: usize) -> usize {
    let mut bytes = RESPONSE_BYTES;
    let fits = events.iter().take_while(|event| {
        bytes += event_bytes(event);
        bytes < bytes_max
    });
    fits.count().clamp(1, events.len().max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes of what etcd's own encoder makes of these.
    #[test]
    fn sizes_are_those_of_the_wire() {
        let kv = |value: Bytes, lease| KeyValue {
            key: Bytes::from_static(b"k"),
            create_revision: Revision(2),
            mod_revision: Revision(300),
            version: 1,
            value,
            lease,
        };
        // Key 3, create 2, mod 3, version 2, value 3: 13, in a field of 15, in a field of 17.
        assert_eq!(event_bytes(&Event::put(kv(Bytes::from_static(b"v"), None), None)), 17);
        // A negative lease takes ten bytes and its tag.
        let lease = Some(LeaseId(-1));
        assert_eq!(event_bytes(&Event::put(kv(Bytes::from_static(b"v"), lease), None)), 28);
        // Kind 2, pair of key and revision 8; the former pair of 10 + 203.
        let prev = kv(Bytes::from(vec![0; 200]), None);
        let delete = Event::delete(Bytes::from_static(b"k"), Revision(300), Some(prev));
        assert_eq!(event_bytes(&delete), field(2 + 8 + 216));
    }

    #[test]
    fn a_fragment_has_at_least_one_event() {
        let event = Event::delete(Bytes::from_static(b"k"), Revision(2), None);
        let events = vec![event; 10];
        assert_eq!(fragment_len(&events, 0), 1);
        assert_eq!(fragment_len(&events, usize::MAX), 10);
        let three = RESPONSE_BYTES + 3 * event_bytes(&events[0]) + 1;
        assert_eq!(fragment_len(&events, three), 3);
        assert_eq!(fragment_len(&events, three - 1), 2);
    }
}

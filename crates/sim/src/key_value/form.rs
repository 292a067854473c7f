//! Bytes of the reference store, for snapshots.

use std::sync::Arc;

use bytes::Bytes;
use quorate_kv::{Changes, Event, EventKind, KeyValue, LeaseId, Revision};

use super::reference::Reference;

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn number(&mut self, number: i64) {
        self.0.extend(number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as i64);
        self.0.extend(bytes);
    }

    fn pair(&mut self, kv: &KeyValue) {
        self.bytes(&kv.key);
        self.bytes(&kv.value);
        self.number(kv.create_revision.0);
        self.number(kv.mod_revision.0);
        self.number(kv.version);
        self.number(kv.lease.map_or(0, |lease| lease.0));
    }
}

/// Reads what a [`Writer`] wrote. Snapshots of a run are whole; a checker of the transfer judges that.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn number(&mut self) -> i64 {
        let (number, rest) = self.0.split_first_chunk().expect("a whole snapshot");
        self.0 = rest;
        i64::from_le_bytes(*number)
    }

    fn bytes(&mut self) -> Bytes {
        let len = usize::try_from(self.number()).expect("a length");
        let (bytes, rest) = self.0.split_at(len);
        self.0 = rest;
        Bytes::copy_from_slice(bytes)
    }

    fn pair(&mut self) -> KeyValue {
        KeyValue {
            key: self.bytes(),
            value: self.bytes(),
            create_revision: Revision(self.number()),
            mod_revision: Revision(self.number()),
            version: self.number(),
            lease: LeaseId::from_number(self.number()),
        }
    }
}

pub(super) fn to_bytes(store: &Reference) -> Bytes {
    let mut writer = Writer::default();
    writer.number(store.compacted.0);
    writer.number(store.leases.len() as i64);
    for (id, record) in store.leases.records() {
        writer.number(id.0);
        writer.bytes(&record);
    }
    writer.number(store.pairs.len() as i64);
    store.pairs.values().for_each(|kv| writer.pair(kv));
    writer.number(store.changes.len() as i64);
    for changes in &store.changes {
        writer.number(changes.revision.0);
        writer.number(changes.events.len() as i64);
        for event in &changes.events[..] {
            writer.number(i64::from(event.kind == EventKind::Put));
            writer.pair(&event.kv);
            writer.number(i64::from(event.prev.is_some()));
            event.prev.iter().for_each(|prev| writer.pair(prev));
        }
    }
    writer.0.into()
}

pub(super) fn from_bytes(bytes: &[u8]) -> Reference {
    let mut reader = Reader(bytes);
    let mut store = Reference { compacted: Revision(reader.number()), ..Reference::default() };
    for _ in 0..reader.number() {
        let id = LeaseId(reader.number());
        store.leases.restore(id, &reader.bytes()).expect("a record of a lease");
    }
    for _ in 0..reader.number() {
        let kv = reader.pair();
        if let Some(lease) = kv.lease {
            store.leases.attach(&kv.key, lease).expect("a key's lease exists");
        }
        store.pairs.insert(kv.key.clone(), kv);
    }
    for _ in 0..reader.number() {
        let revision = Revision(reader.number());
        let events = 0..reader.number();
        let events: Arc<[Event]> = events
            .map(|_| {
                let kind = if reader.number() == 1 { EventKind::Put } else { EventKind::Delete };
                let kv = reader.pair();
                let prev = (reader.number() == 1).then(|| reader.pair());
                Event { kind, kv, prev }
            })
            .collect();
        store.changes.push(Changes { revision, events });
    }
    store
}

//! Clients that watch, and go elsewhere when their node dies or when they feel like it.

use bytes::Bytes;
use quorate_kv::{Event, Revision, WatchCreate, WatchId, WatchRequest, WatchResponse, WatchStream};
use quorate_raft::NodeId;

use super::machine::KeyValueMachine;
use super::oracle::Oracle;
use crate::rng::Rng;

/// A client that wants every event of a range, once, wherever it gets them.
#[derive(Debug)]
pub(super) struct Watcher {
    rng: Rng,
    key: Bytes,
    range_end: Bytes,
    prev_kv: bool,
    /// Everything before it has been heard of; `None` before the first answer.
    next: Option<Revision>,
    stream: Option<Stream>,
    pub(super) heard: u64,
    pub(super) resumed: u64,
    pub(super) compacted: u64,
    pub(super) progress: u64,
}

#[derive(Debug)]
struct Stream {
    stream: WatchStream,
    node: NodeId,
    /// The life of the replica that it belongs to.
    life: u64,
}

impl Watcher {
    pub(super) fn new(mut rng: Rng, keys: u64) -> Self {
        let key = format!("k{}", rng.below(keys));
        let range_end = *rng.pick(&["", "\0", "k~"]).expect("there are some");
        Self {
            key: key.into(),
            range_end: Bytes::from_static(range_end.as_bytes()),
            prev_kv: rng.chance(500_000),
            next: None,
            stream: None,
            heard: 0,
            resumed: 0,
            compacted: 0,
            progress: 0,
            rng,
        }
    }

    /// Where its stream is.
    pub(super) fn node(&self) -> Option<NodeId> {
        self.stream.as_ref().map(|stream| stream.node)
    }

    /// Goes on at a replica, if it is nowhere; or leaves it, perhaps.
    pub(super) fn attach(&mut self, node: NodeId, machine: &KeyValueMachine) -> Result<(), String> {
        let alive = |stream: &Stream| stream.node == node && stream.life == machine.life;
        if self.stream.as_ref().is_some_and(alive) && !self.rng.chance(2_000) {
            return Ok(());
        }
        let stream = machine.hub.open();
        let create = WatchCreate {
            key: self.key.clone(),
            range_end: self.range_end.clone(),
            start_revision: self.next.unwrap_or_default(),
            prev_kv: self.prev_kv,
            progress_notify: true,
            fragment: true,
            ..WatchCreate::default()
        };
        self.resumed += u64::from(self.next.is_some());
        stream.request(WatchRequest::Create(create)).map_err(|full| full.to_string())?;
        self.stream = Some(Stream { stream, node, life: machine.life });
        Ok(())
    }

    /// Hears what its stream has to say.
    pub(super) fn hear(&mut self, oracle: &Oracle, compacted: Revision) -> Result<(), String> {
        let Some(Stream { stream, node, .. }) = &self.stream else { return Ok(()) };
        if self.rng.chance(100_000) {
            drop(stream.request(WatchRequest::Progress));
        }
        let node = *node;
        let most = self.rng.below(30);
        for _ in 0..most {
            let said = self.stream.as_ref().and_then(|stream| stream.stream.try_next());
            let Some(said) = said else { break };
            let judged = self.judge(&said, oracle, compacted);
            judged.map_err(|why| format!("a watch at n{node} from {:?}: {why}", self.next))?;
            if said.canceled {
                self.stream = None;
                break;
            }
        }
        Ok(())
    }

    fn judge(
        &mut self,
        said: &WatchResponse,
        oracle: &Oracle,
        compacted: Revision,
    ) -> Result<(), String> {
        let next = *self.next.get_or_insert(Revision(said.revision.0 + 1));
        if said.created {
            return Ok(());
        }
        if let Some(up_to) = said.compact_revision {
            if up_to <= next || up_to > compacted {
                return Err(format!("canceled for compaction up to {}", up_to.0));
            }
            self.compacted += 1;
            self.next = Some(up_to);
            return Ok(());
        }
        let Some(last) = said.events.last().map(Event::revision) else {
            self.progress += 1;
            let missing = oracle.events(next, said.revision, |event| self.wants(event));
            if said.watch_id != WatchId::NONE && said.watch_id != WatchId(0) || !missing.is_empty()
            {
                return Err(format!("progress to {}, but not {missing:?}", said.revision.0));
            }
            // What is told once is not told again.
            self.next = Some(next.max(Revision(said.revision.0 + 1)));
            return Ok(());
        };
        let expected = oracle.events(next, last, |event| self.wants(event));
        let bare = |event: &Event| Event { prev: None, ..event.clone() };
        let same = said.events.iter().map(bare).eq(expected.iter().map(bare));
        let prevs = said.events.iter().zip(&expected).all(|(event, expected)| match &event.prev {
            None => true,
            prev => self.prev_kv && *prev == expected.prev,
        });
        if !same || !prevs || said.revision < last {
            return Err(format!("{said:?}, expected {expected:?}"));
        }
        self.heard += expected.len() as u64;
        self.next = Some(Revision(last.0 + 1));
        Ok(())
    }

    /// At the end: nothing is missing.
    pub(super) fn is_complete(&self, oracle: &Oracle, current: Revision) -> Result<(), String> {
        let next = self.next.unwrap_or_default();
        let missing = oracle.events(next, current, |event| self.wants(event));
        match missing.first() {
            Some(first) if self.next.is_some() => Err(format!("a watch never heard of {first:?}")),
            _ => Ok(()),
        }
    }

    fn wants(&self, event: &Event) -> bool {
        let key = &event.kv.key;
        match &self.range_end[..] {
            b"" => *key == self.key,
            b"\0" => *key >= self.key,
            end => *key >= self.key && &key[..] < end,
        }
    }
}

//! What is going to happen, and when.

use std::collections::BTreeMap;

use quorate_node::NodeMessage;
use quorate_raft::{Incarnation, Load, NodeId, Time};

/// Something that is going to happen. Where an `epoch` is given, it is void once the process of
/// that time has died.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Task {
    /// A message reaches its receiver.
    Arrive(NodeMessage),
    /// A node works on the batch that it has collected.
    Batch { node: NodeId, epoch: u64 },
    /// A sync has completed, unless it was put off.
    Synced { node: NodeId, epoch: u64, serial: u64 },
    /// A full disk is tried again.
    DiskRetry { node: NodeId, epoch: u64 },
    /// The state machine has done a piece of work.
    Worked { node: NodeId, epoch: u64 },
    /// A snapshot is written.
    Spooled { node: NodeId, epoch: u64 },
    /// The state machine's contents are made durable.
    Flush { node: NodeId, epoch: u64 },
    /// A read from the log has completed.
    Loaded { node: NodeId, epoch: u64, load: Load },
    /// A fetch has ended. The source must still be the same process.
    Fetched { node: NodeId, epoch: u64, serial: u64, source_epoch: u64, fails: bool },
    /// A host has read back its disk.
    Recovered { node: NodeId, epoch: u64 },
    /// A host hears that the process of a peer has ended.
    PeerClosed { at: NodeId, peer: NodeId, incarnation: Incarnation },
    /// The caller asked for it.
    Timer(u64),
}

/// Tasks in the order of their time; of equal times, in the order in which they were added.
#[derive(Clone, Debug, Default)]
pub(super) struct Schedule {
    tasks: BTreeMap<(Time, u64), Task>,
    added: u64,
}

impl Schedule {
    pub(super) fn add(&mut self, at: Time, task: Task) {
        self.added += 1;
        self.tasks.insert((at, self.added), task);
    }

    pub(super) fn next_at(&self) -> Option<Time> {
        self.tasks.first_key_value().map(|((at, _), _)| *at)
    }

    pub(super) fn pop(&mut self) -> Option<(Time, Task)> {
        self.tasks.pop_first().map(|((at, _), task)| (at, task))
    }

    /// Takes out all messages, in the order in which they would arrive.
    pub(super) fn take_messages(&mut self) -> Vec<NodeMessage> {
        let mut messages = Vec::new();
        let tasks = std::mem::take(&mut self.tasks);
        for (key, task) in tasks {
            match task {
                Task::Arrive(message) => messages.push(message),
                other => {
                    self.tasks.insert(key, other);
                }
            }
        }
        messages
    }
}

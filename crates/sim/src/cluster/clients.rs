//! What clients ask of the cluster. Answers come as [`Observed::Answered`](super::Observed), or as
//! `Abandoned` if the node dies first.

use bytes::Bytes;
use quorate_node::{Event, Request};
use quorate_raft::{Change, NodeId, ReadMode, RequestId, Term};

use super::Cluster;

/// Each gives `None` if the node does not run. A frozen one takes the request and works on it
/// later.
impl Cluster {
    /// Asks a node for something.
    pub fn request(&mut self, node: NodeId, request: Request) -> Option<RequestId> {
        self.requests(node, vec![request]).pop()
    }

    /// Asks a node for several things at the same moment; it works on them together. Nothing is
    /// asked of one that does not run.
    pub fn requests(&mut self, node: NodeId, requests: Vec<Request>) -> Vec<RequestId> {
        let requests = requests.into_iter().map(|request| (request, None)).collect();
        self.ask(node, requests)
    }

    fn ask(&mut self, node: NodeId, requests: Vec<(Request, Option<Bytes>)>) -> Vec<RequestId> {
        let Some(host) = self.hosts.get_mut(&node) else { return Vec::new() };
        let Some(process) = &mut host.process else { return Vec::new() };
        let mut ids = Vec::new();
        let mut events = Vec::new();
        for (request, query) in requests {
            self.last_request += 1;
            let id = RequestId(self.last_request);
            process.requests.insert(id, query);
            ids.push(id);
            events.push(Event::Request { id, request });
        }
        // One may be put off and batched with others; several are meant to be a batch.
        if host.paused || !process.inbox.is_empty() {
            process.inbox.extend(events);
        } else if events.len() > 1 {
            self.run(node, events);
        } else if let Some(event) = events.pop() {
            self.input(node, event);
        }
        ids
    }

    /// A command for the state machine.
    pub fn propose(&mut self, node: NodeId, command: Bytes) -> Option<RequestId> {
        self.request(node, Request::Propose { command, in_term: None })
    }

    /// A command that is good in one term only.
    pub fn propose_in_term(
        &mut self,
        node: NodeId,
        command: Bytes,
        term: Term,
    ) -> Option<RequestId> {
        self.request(node, Request::Propose { command, in_term: Some(term) })
    }

    /// A linearizable read; `query` is put to the state machine as soon as the node lets it.
    pub fn read(&mut self, node: NodeId, mode: ReadMode, query: Bytes) -> Option<RequestId> {
        self.ask(node, vec![(Request::Read { mode }, Some(query))]).pop()
    }

    /// A local read, possibly stale.
    pub fn local_read(&mut self, node: NodeId, query: Bytes) -> Option<RequestId> {
        self.ask(node, vec![(Request::LocalRead, Some(query))]).pop()
    }

    /// A change of the configuration.
    pub fn change(&mut self, node: NodeId, change: Change) -> Option<RequestId> {
        self.request(node, Request::Change(change))
    }

    /// A transfer of leadership.
    pub fn transfer(&mut self, node: NodeId, to: NodeId) -> Option<RequestId> {
        self.request(node, Request::Transfer { to })
    }

    /// A campaign by order of an operator.
    pub fn campaign(&mut self, node: NodeId) -> Option<RequestId> {
        self.request(node, Request::Campaign)
    }
}

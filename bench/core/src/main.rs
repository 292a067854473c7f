//! Throughput of the bare core: three cores joined in one thread, no simulator, no disk, no wire.
//! Every write is durable at once and every message arrives at once, so that all the time that
//! passes is the core's own.
//!
//! Prints commands per second, allocations per command and nanoseconds per step; for one command
//! at a time and for 256 in flight, behind a log of different lengths.

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use quorate_raft::{
    Answer, ClusterId, Config, Effect, Incarnation, Index, Input, Member, MemberRole, Membership,
    NodeId, Proposal, Raft, Recovered, RequestId, RoleName, Time,
};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Three cores, and what is on its way to them.
struct Trio {
    cores: Vec<Raft>,
    inbox: VecDeque<(usize, Input)>,
    now: Time,
    steps: u64,
    applied: u64,
    rounds: u64,
}

impl Trio {
    fn new() -> Self {
        let incarnation = |node: u64| Incarnation(100 + node);
        let member = |node: u64| {
            let mut member = Member::new(MemberRole::Voter);
            member.incarnation = Some(incarnation(node));
            (NodeId(node), member)
        };
        let membership = std::sync::Arc::new(Membership::bootstrap((1..=3).map(member)));
        let core = |node: u64| {
            let config = Config::new(ClusterId(1), NodeId(node), incarnation(node));
            let recovered = Recovered::new(membership.clone(), node);
            Raft::new(config, Time(0), node, recovered).expect("a sound configuration")
        };
        let cores = (1..=3).map(core).collect();
        let mut trio =
            Self { cores, inbox: VecDeque::new(), now: Time(0), steps: 0, applied: 0, rounds: 0 };
        trio.inbox.push_back((0, Input::Campaign { id: RequestId(0) }));
        trio.settle();
        assert_eq!(trio.cores[0].role(), RoleName::Leader);
        trio
    }

    fn step(&mut self, core: usize, input: Input) {
        self.steps += 1;
        self.cores[core].step(self.now, input);
    }

    /// Carries out what core `at` wants.
    fn carry_out(&mut self, at: usize) {
        for effect in self.cores[at].take_effects() {
            match effect {
                Effect::Persist(persist) => {
                    self.inbox.push_back((at, Input::Persisted(persist.seq)));
                }
                Effect::Send(envelope) => {
                    let to = envelope.to.0 as usize - 1;
                    self.inbox.push_back((to, Input::Receive(envelope)));
                }
                Effect::Apply(entries) => {
                    if at == 0 {
                        self.applied += entries.len() as u64;
                    }
                    let last = entries.last().map_or(Index::ZERO, |entry| entry.index);
                    self.inbox.push_back((at, Input::Applied(last)));
                }
                Effect::Answer(Answer::ProposeFailed { error, .. }) => panic!("{error}"),
                _ => {}
            }
        }
    }

    fn settle(&mut self) {
        for at in 0..3 {
            self.carry_out(at);
        }
        while let Some((at, input)) = self.inbox.pop_front() {
            self.step(at, input);
            self.carry_out(at);
        }
    }

    /// Proposes `count` commands at once and lets them be applied.
    fn round(&mut self, count: usize, command: &Bytes) {
        for _ in 0..count {
            self.step(0, Input::Propose(Proposal::new(RequestId(1), command.clone())));
        }
        self.now = self.now.after(100);
        self.settle();
        // Snapshots are taken now and then, as a host would.
        self.rounds += 1;
        if self.rounds.is_multiple_of(1_024) {
            for at in 0..3 {
                let up_to = self.cores[at].applied();
                self.step(at, Input::Compact { up_to });
            }
        }
    }
}

fn main() {
    let quick = std::env::args().any(|arg| arg == "--quick");
    let scale = if quick { 20 } else { 1 };
    println!("three cores in one thread, 16-byte commands");
    println!(
        "{:>10} {:>12} {:>14} {:>12} {:>10} {:>12}",
        "in flight", "log before", "commands/s", "allocs/cmd", "ns/step", "steps/cmd"
    );
    for (in_flight, before, commands) in
        [(1, 0, 400_000), (1, 1_000_000, 400_000), (256, 0, 4_000_000), (256, 1_000_000, 4_000_000)]
    {
        let command = Bytes::from_static(b"sixteen bytes ok");
        let mut trio = Trio::new();
        for _ in 0..before / scale / 256 {
            trio.round(256, &command);
        }
        let (steps, applied) = (trio.steps, trio.applied);
        let allocations = ALLOCATIONS.load(Ordering::Relaxed);
        let start = Instant::now();
        for _ in 0..commands / scale / in_flight {
            trio.round(in_flight, &command);
        }
        let elapsed = start.elapsed();
        let done = (trio.applied - applied) as f64;
        let allocations = (ALLOCATIONS.load(Ordering::Relaxed) - allocations) as f64;
        let steps = (trio.steps - steps) as f64;
        println!(
            "{in_flight:>10} {:>12} {:>14.0} {:>12.2} {:>10.0} {:>12.2}",
            before / scale,
            done / elapsed.as_secs_f64(),
            allocations / done,
            elapsed.as_nanos() as f64 / steps,
            steps / done,
        );
    }
}

//! Who runs the state machine: the driver itself, or a thread.
//!
//! A hop to a thread and back costs some microseconds, more than most machines in memory take for a
//! batch. So a cheap one runs in the driver, and one that may take its time on a thread, where it
//! delays no heartbeat.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;

use quorate_node::Event;
use quorate_raft::{Entry, Index, Install};

use crate::durable::{Flush, FlushJob};
use crate::error::StopReason;
use crate::inbox::{Inbox, Report};
use crate::panics::{message_of, reporting, unstarted};
use crate::replica::Replicated;
use crate::snapshot_file::sessions_of;
use crate::snapshots::Snapshots;

/// Work for the state machine, in order. The core bounds what is not applied yet.
pub(crate) enum Work {
    Apply(Vec<Entry>),
    /// Take a view of the data, and report it.
    View,
    /// Replace the data, then let the log go on.
    Install(Install, mpsc::Sender<()>),
    /// Make durable what was applied, and report up to where it is.
    Flush,
}

pub(crate) struct Machinist {
    pub(crate) replica: Arc<dyn Replicated>,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) inbox: Arc<Inbox>,
    /// The thread that makes data durable while others are applied.
    flushing: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Machinist {
    pub(crate) fn new(
        replica: Arc<dyn Replicated>,
        snapshots: Arc<Snapshots>,
        inbox: Arc<Inbox>,
    ) -> Self {
        Self { replica, snapshots, inbox, flushing: Arc::default() }
    }

    /// Another hand for the same machine.
    pub(crate) fn share(&self) -> Self {
        let flushing = Arc::clone(&self.flushing);
        let replica = Arc::clone(&self.replica);
        let (snapshots, inbox) = (Arc::clone(&self.snapshots), Arc::clone(&self.inbox));
        Self { replica, snapshots, inbox, flushing }
    }

    /// Starts a thread that does what is sent to it, until the sender is dropped or it fails.
    pub(crate) fn run(self, name: &str) -> io::Result<(mpsc::Sender<Work>, JoinHandle<()>)> {
        let (sender, receiver) = mpsc::channel();
        let inbox = Arc::clone(&self.inbox);
        let work = move || {
            while let Ok(work) = receiver.recv() {
                if let Err(why) = self.work(work) {
                    return self.inbox.report(Report::Stop(why));
                }
            }
        };
        let thread = std::thread::Builder::new().name(format!("{name}-apply"));
        let thread = thread.spawn(reporting("the thread that applies", &inbox, work));
        let thread = thread.map_err(unstarted)?;
        Ok((sender, thread))
    }

    pub(crate) fn work(&self, work: Work) -> Result<(), StopReason> {
        match work {
            Work::Apply(entries) => {
                let up_to = entries.last().map_or(Index::ZERO, |entry| entry.index);
                let responses = self.replica.apply(&entries)?;
                self.inbox.event(Event::Applied { up_to, responses });
            }
            Work::View => self.inbox.report(Report::View(self.replica.view()?)),
            Work::Install(install, done) => {
                self.flushed();
                self.install(&install)?;
                // Whoever does not wait any more has stopped.
                let _ = done.send(());
            }
            Work::Flush => self.flush()?,
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), StopReason> {
        self.flushed();
        match self.replica.flush()? {
            None => {}
            Some(Flush::Done(index)) => self.inbox.report(Report::Flushed(index)),
            Some(Flush::Job(job)) => {
                let inbox = Arc::clone(&self.inbox);
                let run = move || {
                    inbox.report(match run(job) {
                        Ok(index) => Report::Flushed(index),
                        Err(why) => Report::Stop(why),
                    });
                };
                let thread = std::thread::Builder::new().name("quorate-flush".to_owned());
                let thread = thread.spawn(run).map_err(|error| failed(&unstarted(error)))?;
                *self.flushing.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
            }
        }
        Ok(())
    }

    /// Waits for the flush that is under way.
    fn flushed(&self) {
        let thread = self.flushing.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // It reports by itself, panics too.
            let _ = thread.join();
        }
    }

    /// The node stops; `last` if what was applied is to be durable then.
    pub(crate) fn end(&self, last: bool) {
        self.flushed();
        if last && let Ok(Some(Flush::Job(job))) = self.replica.flush() {
            // If it fails, the log still has everything.
            let _ = run(job);
        }
    }

    fn install(&self, install: &Install) -> Result<(), StopReason> {
        let id = install.snapshot.id;
        let failed = |error: io::Error| StopReason::Machine {
            operation: "restore",
            message: format!("{}: {error}", self.snapshots.describe(id)),
        };
        let (head, mut reader) = self.snapshots.read(id).map_err(failed)?;
        let sessions = sessions_of(&head).map_err(failed)?;
        self.replica.restore(id, sessions, &mut reader)
    }
}

fn failed(error: &io::Error) -> StopReason {
    StopReason::Machine { operation: "flush", message: error.to_string() }
}

/// Runs the second half of a flush.
fn run(job: FlushJob) -> Result<Index, StopReason> {
    match catch_unwind(AssertUnwindSafe(job)) {
        Ok(result) => result.map_err(|error| failed(&error)),
        Err(panic) => {
            Err(StopReason::Panicked { operation: "flush", message: message_of(&*panic) })
        }
    }
}

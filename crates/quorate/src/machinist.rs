//! Who runs the state machine: the driver itself, or a thread.
//!
//! A hop to a thread and back costs some microseconds, more than most machines in memory take for a
//! batch. So a cheap one runs in the driver, and one that may take its time on a thread, where it
//! delays no heartbeat.

use std::io;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use quorate_node::Event;
use quorate_raft::{Entry, Index, Install};

use crate::error::StopReason;
use crate::inbox::{Inbox, Report};
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
}

impl Machinist {
    /// Starts a thread that does what is sent to it, until the sender is dropped or it fails.
    pub(crate) fn run(self, name: &str) -> io::Result<(mpsc::Sender<Work>, JoinHandle<()>)> {
        let (sender, receiver) = mpsc::channel();
        let thread =
            std::thread::Builder::new().name(format!("{name}-apply")).spawn(move || {
                while let Ok(work) = receiver.recv() {
                    if let Err(why) = self.work(work) {
                        self.inbox.report(Report::Stop(why));
                        return;
                    }
                }
            })?;
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
                self.install(&install)?;
                // Whoever does not wait any more has stopped.
                let _ = done.send(());
            }
            Work::Flush => {
                if let Some(index) = self.replica.flush()? {
                    self.inbox.report(Report::Flushed(index));
                }
            }
        }
        Ok(())
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

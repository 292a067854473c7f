//! Signals that ask a process to end.

use std::io;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

/// One of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Request {
    /// From a terminal.
    Interrupt,
    /// From whoever manages processes.
    Terminate,
}

impl Request {
    /// How it is called.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "interrupt",
            Self::Terminate => "terminated",
        }
    }

    fn kind(self) -> SignalKind {
        match self {
            Self::Interrupt => SignalKind::interrupt(),
            Self::Terminate => SignalKind::terminate(),
        }
    }

    /// Ends the process by the signal, so that its parent sees why it ended. The first process of a
    /// container is not ended by signals that it does not handle: it just ends well.
    pub(crate) fn end(self) -> ExitCode {
        if std::process::id() != 1 {
            // It returns only if the signal could not be raised.
            let _ = signal_hook::low_level::emulate_default_handler(self.kind().as_raw_value());
        }
        ExitCode::SUCCESS
    }
}

/// Hears the signals from now on.
pub(crate) struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    /// From now on they do not end the process any more.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(Request::Interrupt.kind())?,
            terminate: signal(Request::Terminate.kind())?,
        })
    }

    /// The next one.
    pub(crate) async fn next(&mut self) -> Request {
        // A stream of signals never ends.
        tokio::select! {
            _ = self.interrupt.recv() => Request::Interrupt,
            _ = self.terminate.recv() => Request::Terminate,
        }
    }
}

//! The loads that are calls with one answer each.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use clap::Args;

use super::keys::{Chooser, Data, Distribution, Random};
use super::run::{Load, Pace, Settings, Task, Tasks, Thread, client};
use super::work::{Kind, Putter, Ranger, Swapper, Work};
use crate::client::Failure;

/// Clients that write while others read, if some shall.
const WRITERS: usize = 16;

/// `put`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Put {
    #[command(flatten)]
    pub(crate) data: Data,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

/// `range`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Range {
    #[command(flatten)]
    pub(crate) data: Data,
    #[command(flatten)]
    pub(crate) settings: Settings,
    /// Keys of one range
    #[arg(long, default_value_t = 1)]
    pub(crate) width: u64,
    /// Take what the asked member has, however old
    #[arg(long)]
    pub(crate) serializable: bool,
    /// Puts a second by other clients meanwhile
    #[arg(long)]
    pub(crate) puts: Option<u64>,
}

/// `txn`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Txn {
    #[command(flatten)]
    pub(crate) data: Data,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

/// `mixed`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Mixed {
    #[command(flatten)]
    pub(crate) data: Data,
    #[command(flatten)]
    pub(crate) settings: Settings,
    /// So many percent of the calls are reads
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u64).range(0..=100))]
    pub(crate) reads: u64,
    /// Take what the asked member has, however old
    #[arg(long)]
    pub(crate) serializable: bool,
}

/// One of them.
#[derive(Clone, Debug)]
pub(crate) enum Calls {
    Put(Put),
    Range(Range),
    Txn(Txn),
    Mixed(Mixed),
}

impl Calls {
    fn data(&self) -> &Data {
        match self {
            Self::Put(put) => &put.data,
            Self::Range(range) => &range.data,
            Self::Txn(txn) => &txn.data,
            Self::Mixed(mixed) => &mixed.data,
        }
    }

    fn settings(&self) -> &Settings {
        match self {
            Self::Put(put) => &put.settings,
            Self::Range(range) => &range.settings,
            Self::Txn(txn) => &txn.settings,
            Self::Mixed(mixed) => &mixed.settings,
        }
    }

    /// Refuses what cannot be.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let data = self.data();
        data.check()?;
        match self {
            Self::Range(range) if range.width == 0 || range.width > data.keys => {
                Err(Failure::Input(format!(
                    "--width must be from 1 to the number of keys, {}",
                    data.keys
                )))
            }
            Self::Range(Range { puts: Some(0), .. }) => {
                Err(Failure::Input("--puts must be at least 1".to_owned()))
            }
            Self::Txn(txn) if (txn.settings.clients as u64) > data.keys => Err(Failure::Input(
                "--keys must be at least as many as --clients: each client has its own".to_owned(),
            )),
            _ => Ok(()),
        }
    }

    /// How this client chooses among all keys but the last few.
    fn chooser(&self, client: usize, without: u64) -> Chooser {
        let data = self.data();
        let settings = self.settings();
        let count = data.keys - without;
        let begin = u128::from(count) * client as u128 / settings.clients.max(1) as u128;
        let random = Random::new(settings.seed, client as u64);
        Chooser::new(data.distribution, 0, count, random)
            .beginning_at(u64::try_from(begin).unwrap_or(0))
    }

    fn putter(&self, client: usize, kind: Kind, chooser: Chooser) -> Putter {
        let data = self.data().clone();
        // The same values for all clients: they cost memory, and their order differs.
        let values = data.values(&mut Random::new(self.settings().seed, u64::MAX));
        Putter { kind, data, values, chooser, calls: client }
    }

    fn ranger(&self, client: usize, width: u64, serializable: bool) -> Ranger {
        let chooser = self.chooser(client, width - 1);
        Ranger { kind: 0, data: self.data().clone(), chooser, width, serializable }
    }

    fn work(&self, client: usize) -> Work {
        match self {
            Self::Put(_) => Work::Put(self.putter(client, 0, self.chooser(client, 0))),
            Self::Range(range) => Work::Range(self.ranger(client, range.width, range.serializable)),
            Self::Mixed(mixed) => Work::Mixed(
                mixed.reads,
                self.ranger(client, 1, mixed.serializable),
                self.putter(client, 1, self.chooser(client, 0)),
            ),
            Self::Txn(txn) => {
                let clients = txn.settings.clients as u64;
                let bound = |client: u64| {
                    u64::try_from(
                        u128::from(txn.data.keys) * u128::from(client) / u128::from(clients),
                    )
                    .unwrap_or(0)
                };
                let first = bound(client as u64);
                let count = bound(client as u64 + 1) - first;
                let random = Random::new(txn.settings.seed, client as u64);
                let chooser = Chooser::new(txn.data.distribution, first, count, random);
                Work::Swap(Swapper {
                    swapped: 0,
                    conflict: 1,
                    putter: self.putter(client, 0, chooser),
                    first,
                    revisions: vec![0; usize::try_from(count).unwrap_or(0)],
                })
            }
        }
    }

    async fn prepared(self: Arc<Self>, thread: Rc<Thread>) -> Result<Tasks, Failure> {
        let clients = self.settings().clients;
        let rate = self.settings().rate;
        let mut tasks: Vec<Task> = Vec::new();
        for number in thread.share(clients) {
            let link = thread.link(number);
            let mut work = self.work(number);
            work.prepare(&link).await?;
            let pace = rate.map(|rate| Pace::new(rate, number, clients));
            tasks.push(Box::pin(client(Rc::clone(&thread), link, work, pace)));
        }
        if let Self::Range(Range { puts: Some(rate), data, settings, .. }) = &*self {
            for number in thread.share(WRITERS) {
                let random = Random::new(settings.seed, (clients + number) as u64);
                let chooser = Chooser::new(Distribution::Uniform, 0, data.keys, random);
                let work = Work::Put(self.putter(number, 1, chooser));
                let pace = Some(Pace::new(*rate, number, WRITERS));
                let link = thread.link(number);
                tasks.push(Box::pin(client(Rc::clone(&thread), link, work, pace)));
            }
        }
        Ok(Tasks { clients: tasks, listeners: Vec::new() })
    }
}

impl Load for Calls {
    fn kinds(&self) -> Vec<&'static str> {
        match self {
            Self::Put(_) => vec!["put"],
            Self::Range(Range { puts: None, .. }) => vec!["range"],
            Self::Range(_) | Self::Mixed(_) => vec!["range", "put"],
            Self::Txn(_) => vec!["txn", "conflict"],
        }
    }

    fn operations(&self) -> usize {
        match self {
            Self::Put(_) | Self::Range(_) => 1,
            Self::Txn(_) | Self::Mixed(_) => 2,
        }
    }

    fn tasks(
        self: Arc<Self>,
        thread: Rc<Thread>,
    ) -> Pin<Box<dyn Future<Output = Result<Tasks, Failure>>>> {
        Box::pin(self.prepared(thread))
    }
}

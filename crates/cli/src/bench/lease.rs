//! Leases that are kept alive, each over a stream of its own, as clients do it.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use prost::Message;
use quorate_etcd::proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseRevokeRequest,
};

use super::connection::{CallError, Link, Procedure, Stream, frame};
use super::run::{ERROR_PAUSE, Load, Pace, Settings, Task, Tasks, Thread};
use super::work::undecoded;
use crate::client::Failure;

/// `lease`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Lease {
    #[command(flatten)]
    pub(crate) settings: Settings,
    /// Seconds that a lease lives without a sign of life
    #[arg(long, default_value_t = 300)]
    pub(crate) ttl: i64,
}

impl Lease {
    /// Refuses what cannot be.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.ttl < 1 {
            return Err(Failure::Input("--ttl must be at least 1".to_owned()));
        }
        Ok(())
    }

    async fn prepared(self: Arc<Self>, thread: Rc<Thread>) -> Result<Tasks, Failure> {
        let clients = self.settings.clients;
        let mut tasks: Vec<Task> = Vec::new();
        for number in thread.share(clients) {
            let link = thread.link(number);
            let request = LeaseGrantRequest { ttl: self.ttl, id: 0 };
            let answer = link.call(Procedure::LeaseGrant, frame(&request)).await?;
            let id = LeaseGrantResponse::decode(answer).map_err(undecoded)?.id;
            let pace = self.settings.rate.map(|rate| Pace::new(rate, number, clients));
            tasks.push(Box::pin(holder(Rc::clone(&thread), link, id, pace)));
        }
        Ok(Tasks { clients: tasks, listeners: Vec::new() })
    }
}

impl Load for Lease {
    fn kinds(&self) -> Vec<&'static str> {
        vec!["keepalive"]
    }

    fn tasks(
        self: Arc<Self>,
        thread: Rc<Thread>,
    ) -> Pin<Box<dyn Future<Output = Result<Tasks, Failure>>>> {
        Box::pin(self.prepared(thread))
    }
}

/// Keeps one lease alive until the time is over, and gives it back then.
async fn holder(thread: Rc<Thread>, link: Rc<Link>, id: i64, pace: Option<Pace>) {
    let request = frame(&LeaseKeepAliveRequest { id });
    let mut stream: Option<Stream> = None;
    let mut clock = thread.clock(pace);
    while let Some(began) = clock.next_call().await {
        let alive = async {
            let stream = match &mut stream {
                Some(stream) => {
                    stream.send(request.clone())?;
                    stream
                }
                none => none.insert(link.stream(Procedure::LeaseKeepAlive, request.clone()).await?),
            };
            let answer = LeaseKeepAliveResponse::decode(stream.next().await?).map_err(undecoded)?;
            if answer.ttl > 0 {
                Ok(())
            } else {
                Err(CallError::strange(format!("lease {id:x} has run out")))
            }
        };
        match alive.await {
            Ok(()) => thread.succeeded(0, began, Instant::now()),
            Err(error) => {
                stream = None;
                thread.failed(error);
                tokio::time::sleep(ERROR_PAUSE).await;
            }
        }
    }
    // If this fails, the lease runs out by itself.
    let _ = link.call(Procedure::LeaseRevoke, frame(&LeaseRevokeRequest { id })).await;
}

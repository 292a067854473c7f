//! Writing every key once, many at a time.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Args;
use quorate_etcd::proto::etcdserverpb::request_op::Request;
use quorate_etcd::proto::etcdserverpb::{PutRequest, RequestOp, TxnRequest};
use serde_json::{Value, json};
use tokio::task::{JoinSet, LocalSet};

use super::connection::{CallError, Link, Procedure, frame};
use super::keys::{Data, Random};
use crate::client::{Common, Failure};
use crate::style::Bar;

/// What servers take in one transaction unless they are told otherwise.
const BATCH_KEYS_MAX: u64 = 100;

/// The same for its size, with room for what is around keys and values.
const BATCH_BYTES_MAX: u64 = 1 << 20;

/// Transactions on their way.
const CLIENTS: u64 = 8;

/// A cluster that refuses a transaction so often in a row is not going to take it.
const ATTEMPTS: u32 = 20;

/// What is done between attempts.
const PAUSE: Duration = Duration::from_millis(250);

/// `fill`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Fill {
    #[command(flatten)]
    pub(crate) data: Data,
    /// Decides which values are written
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

impl Fill {
    /// Writes all keys, and says how long it took.
    pub(crate) fn run(&self, common: &Common) -> Result<Value, Failure> {
        self.data.check()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|why| Failure::File(format!("the runtime cannot be started: {why}")))?;
        let began = Instant::now();
        LocalSet::new().block_on(&runtime, self.write(common))?;
        let seconds = began.elapsed().as_secs_f64();
        Ok(json!({
            "benchmark": "fill",
            "keys": self.data.keys,
            "key_bytes": self.data.key_size,
            "value_bytes": self.data.value_size,
            "seconds": seconds,
        }))
    }

    async fn write(&self, common: &Common) -> Result<(), Failure> {
        let endpoint = common.endpoints();
        let endpoint =
            endpoint.first().ok_or_else(|| Failure::Input("no endpoint is given".to_owned()))?;
        let link = Rc::new(Link::open(endpoint, common.dial_timeout).await?);
        let pair_bytes = (self.data.key_size + self.data.value_size + 32) as u64;
        let batch = (BATCH_BYTES_MAX / pair_bytes).clamp(1, BATCH_KEYS_MAX);
        let bar = Bar::new("filling", Some(self.data.keys), |keys| format!("{keys} keys"));
        let bar = Rc::new(RefCell::new(bar));
        let mut clients = JoinSet::new();
        for client in 0..CLIENTS {
            let (fill, link, bar) = (self.clone(), Rc::clone(&link), Rc::clone(&bar));
            clients.spawn_local(async move {
                let values = fill.data.values(&mut Random::new(fill.seed, u64::MAX));
                let mut first = client * batch;
                while first < fill.data.keys {
                    let numbers = first..fill.data.keys.min(first + batch);
                    let written = numbers.end - numbers.start;
                    let put = |number| PutRequest {
                        key: fill.data.key(number),
                        value: values[number as usize % values.len()].clone(),
                        ..PutRequest::default()
                    };
                    let put =
                        |number| RequestOp { request: Some(Request::RequestPut(put(number))) };
                    let success = numbers.map(put).collect();
                    let request = frame(&TxnRequest { success, ..TxnRequest::default() });
                    persist(&link, request).await?;
                    bar.borrow_mut().add(written);
                    first += CLIENTS * batch;
                }
                Ok::<(), CallError>(())
            });
        }
        while let Some(done) = clients.join_next().await {
            match done {
                Ok(result) => result?,
                Err(_) => return Err(Failure::Unhealthy("a client panicked".to_owned())),
            }
        }
        Ok(())
    }
}

/// Sends a transaction until it is taken; to write the same once more does no harm.
async fn persist(link: &Link, request: bytes::Bytes) -> Result<(), CallError> {
    let mut attempt = 0;
    loop {
        match link.call(Procedure::Txn, request.clone()).await {
            Ok(_) => return Ok(()),
            Err(error) => {
                attempt += 1;
                if attempt == ATTEMPTS {
                    return Err(error);
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

//! A key-value store over HTTP, replicated by three processes.
//!
//! Start three nodes, each in a terminal of its own. The arguments are: id, data directory, where to
//! listen for HTTP, and the addresses at which the nodes reach each other.
//!
//! ```sh
//! peers="127.0.0.1:7401 127.0.0.1:7402 127.0.0.1:7403"
//! cargo run -p quorate --example kv -- 1 /tmp/kv/1 127.0.0.1:8401 $peers
//! cargo run -p quorate --example kv -- 2 /tmp/kv/2 127.0.0.1:8402 $peers
//! cargo run -p quorate --example kv -- 3 /tmp/kv/3 127.0.0.1:8403 $peers
//! ```
//!
//! Then, in a fourth:
//!
//! ```sh
//! curl -X PUT -d 'hello' 127.0.0.1:8401/kv/greeting   # any node takes writes
//! curl 127.0.0.1:8402/kv/greeting                     # any node serves reads that see them
//! curl 127.0.0.1:8403/kv/greeting?stale               # what that node has, at once
//! curl -X DELETE 127.0.0.1:8403/kv/greeting           # gives back what was there
//! curl 127.0.0.1:8401/status                          # who leads, how far everybody is
//! ```
//!
//! Kill one with Ctrl-C or `kill -9`, and the others go on; start it again, and it catches up.

use std::collections::BTreeMap;
use std::io::{self, Read};

use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Router, body::Bytes};
use quorate::{Consistency, Handle, Node, Session, Snapshot, StateMachine};
use serde::{Deserialize, Serialize};

/// What is replicated.
#[derive(Default)]
struct Store(BTreeMap<String, Vec<u8>>);

#[derive(Serialize, Deserialize)]
enum Command {
    Put { key: String, value: Vec<u8> },
    Delete { key: String },
}

impl StateMachine for Store {
    type Command = Command;
    /// What was there before.
    type Reply = Option<Vec<u8>>;

    fn apply(&mut self, commands: Vec<Command>) -> Vec<Option<Vec<u8>>> {
        let carry_out = |command| match command {
            Command::Put { key, value } => self.0.insert(key, value),
            Command::Delete { key } => self.0.remove(&key),
        };
        commands.into_iter().map(carry_out).collect()
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::of(self.0.clone())
    }

    fn restore(&mut self, snapshot: &mut dyn Read) -> io::Result<()> {
        self.0 = quorate::read_snapshot(snapshot)?;
        Ok(())
    }
}

/// What the handlers share: a handle for reads, and a session so that writes happen once.
#[derive(Clone)]
struct App {
    node: Handle<Store>,
    session: Session<Store>,
}

type Answer<T> = Result<T, (StatusCode, String)>;

fn unavailable(why: impl std::fmt::Display) -> (StatusCode, String) {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"))
}

async fn read(
    State(app): State<App>,
    Path(key): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer<Vec<u8>> {
    let stale = query.as_deref() == Some("stale");
    let consistency = if stale { Consistency::Local } else { Consistency::Linearizable };
    let found = app.node.read_with(consistency, |store| store.0.get(&key).cloned()).await;
    let (value, _age) = found.map_err(unavailable)?;
    value.ok_or((StatusCode::NOT_FOUND, "not found\n".to_owned()))
}

async fn write(State(app): State<App>, Path(key): Path<String>, value: Bytes) -> Answer<()> {
    let put = Command::Put { key, value: value.to_vec() };
    app.session.propose(put).await.map(|_| ()).map_err(unavailable)
}

async fn delete(State(app): State<App>, Path(key): Path<String>) -> Answer<Vec<u8>> {
    let deleted = app.session.propose(Command::Delete { key }).await.map_err(unavailable)?;
    deleted.ok_or((StatusCode::NOT_FOUND, "not found\n".to_owned()))
}

async fn status(State(app): State<App>) -> Answer<String> {
    let status = app.node.status().await.map_err(unavailable)?;
    let mut text = format!("{status}\n");
    for peer in &status.peers {
        text.push_str(&format!(
            "  n{} has {} of {}\n",
            peer.node, peer.match_index, status.last_log.index
        ));
    }
    Ok(text)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [id, directory, http, peers @ ..] = arguments.as_slice() else {
        return Err("usage: kv ID DIRECTORY HTTP_ADDRESS PEER_ADDRESS...".into());
    };
    let node = Node::builder(id.parse()?, Store::default())
        .data_dir(directory)
        .members((1..).zip(peers))
        .cluster("kv-example")
        .start()
        .await?;
    println!("node {id} waits for the others");
    // There is none before a majority of the nodes runs.
    let session = loop {
        match node.session().await {
            Ok(session) => break session,
            Err(why) => println!("{why}"),
        }
    };
    let app = Router::new()
        .route("/kv/{key}", get(read).put(write).delete(delete))
        .route("/status", get(status))
        .with_state(App { node: node.handle(), session });
    let listener = tokio::net::TcpListener::bind(http).await?;
    println!("node {id} serves http://{}", listener.local_addr()?);
    let stop = async {
        let _ = tokio::signal::ctrl_c().await;
    };
    axum::serve(listener, app).with_graceful_shutdown(stop).await?;
    // Somebody else leads before this process ends.
    node.shutdown().await;
    Ok(())
}

//! A counter, replicated by three nodes in this process, that survives a restart.
//!
//! ```sh
//! cargo run -p quorate --example counter        # again and again: the counter goes on
//! ```

use std::io::{self, Read};

use quorate::{InProcess, Node, Snapshot, StateMachine};

/// The data, and what commands do to them: this is all that one has to write.
#[derive(Default)]
struct Counter(u64);

impl StateMachine for Counter {
    type Command = u64;
    type Reply = u64;

    fn apply(&mut self, commands: Vec<u64>) -> Vec<u64> {
        let add = |command| {
            self.0 += command;
            self.0
        };
        commands.into_iter().map(add).collect()
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::of(self.0)
    }

    fn restore(&mut self, snapshot: &mut dyn Read) -> io::Result<()> {
        self.0 = quorate::read_snapshot(snapshot)?;
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let network = InProcess::new();
    let mut nodes = Vec::new();
    for id in 1..=3 {
        let builder = Node::builder(id, Counter::default())
            .data_dir(std::env::temp_dir().join(format!("quorate-counter/{id}")))
            .members([(1, ""), (2, ""), (3, "")])
            .in_process(&network);
        nodes.push(builder.start().await?);
    }
    println!("it was {}", nodes[0].read(|counter| counter.0).await?);
    for node in &nodes {
        println!("node {} makes it {}", node.id(), node.propose(1).await?);
    }
    for node in nodes {
        node.shutdown().await;
    }
    Ok(())
}

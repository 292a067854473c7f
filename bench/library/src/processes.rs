//! Three nodes in processes of their own, with logs on disk and TCP between them; the clients are
//! tasks in the leader's process.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use quorate::Node;

use crate::Run;
use crate::ours::{Nothing, Scratch, drive, members};
use crate::{allocations, cpu_seconds, percentile};

/// The argument that makes this program a node: `--node ID DIRECTORY ADDRESS...`.
pub const NODE: &str = "--node";

/// What a node's process does: answers lines with lines.
pub fn node(arguments: &[String]) {
    let [id, directory, addresses @ ..] = arguments else {
        panic!("{NODE} ID DIRECTORY ADDRESS...")
    };
    let id = id.parse().expect("an id is a number");
    let members: Vec<(u64, &String)> = (1..).zip(addresses).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime can be had");
    runtime.block_on(async {
        let builder = Node::builder(id, Nothing).members(members).data_dir(directory);
        let node = builder.start().await.expect("the node starts");
        node.wait_for_leader().await.expect("a leader is elected");
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let words: Vec<usize> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
            match (line.split(' ').next(), &words[..]) {
                (Some("leader"), []) => {
                    println!("{}", node.leader().0.map_or(0, |leader| leader.0))
                }
                (Some("used"), []) => println!("{} {}", cpu_seconds(), allocations::count()),
                (Some("run"), &[clients, commands, bytes]) => {
                    let load = drive(&node, clients, commands, bytes);
                    let (elapsed, mut latencies) = load.await;
                    latencies.sort_unstable();
                    let (p50, p99) = (percentile(&latencies, 50), percentile(&latencies, 99));
                    println!("{} {p50} {p99}", elapsed.as_secs_f64());
                }
                _ => break,
            }
        }
        node.stop().await;
    });
}

struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn ask(&mut self, question: &str) -> Vec<f64> {
        writeln!(self.input, "{question}").expect("the node lives");
        let mut answer = String::new();
        self.output.read_line(&mut answer).expect("the node answers");
        answer.split_whitespace().map(|word| word.parse().expect("it is a number")).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The same work as in one process. CPU time and allocations are those of all three.
pub fn run(clients: usize, commands: usize, bytes: usize) -> Run {
    let scratch = Scratch::new();
    let addresses: Vec<String> = members().into_iter().map(|(_, address)| address).collect();
    let mut processes: Vec<Process> = (1..=3)
        .map(|id| {
            let program = std::env::current_exe().expect("this program is a file");
            let mut child = Command::new(program)
                .args([NODE, &format!("{id}")])
                .arg(scratch.0.join(format!("{id}")))
                .args(&addresses)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("a process starts");
            let input = child.stdin.take().expect("it is piped");
            let output = BufReader::new(child.stdout.take().expect("it is piped"));
            Process { child, input, output }
        })
        .collect();
    let mut leader = 0;
    while leader == 0 {
        leader = processes[0].ask("leader")[0] as usize;
        std::thread::sleep(Duration::from_millis(10));
    }
    // Once around, so that connections and segments are there.
    processes[leader - 1].ask("run 1 100 16");
    let used = |processes: &mut Vec<Process>| {
        let used: Vec<_> = processes.iter_mut().map(|process| process.ask("used")).collect();
        (used.iter().map(|used| used[0]).sum::<f64>(), used.iter().map(|used| used[1]).sum::<f64>())
    };
    let before = used(&mut processes);
    let ran = processes[leader - 1].ask(&format!("run {clients} {commands} {bytes}"));
    let after = used(&mut processes);
    let commands = commands as f64;
    Run {
        per_second: commands / ran[0],
        cpu_us: (after.0 - before.0) * 1e6 / commands,
        p50_us: ran[1],
        p99_us: ran[2],
        allocations: (after.1 - before.1) / commands,
    }
}

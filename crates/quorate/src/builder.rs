//! Starting a node.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_node::{Request, Settings, SnapshotPolicy};
use quorate_raft::{
    ClusterId, Config, Incarnation, Index, Member, MemberRole, Membership, NodeId, Recovered,
};
use quorate_transport::{Identity, Peer, Settings as TcpSettings, Tcp, Transport};
use quorate_wal::{Disk, Options, RealDisk, Unsynced};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::addresses;
use crate::asks::Asks;
use crate::clock;
use crate::disk_log::DiskLog;
use crate::driver::{Driver, Ending, Log, State};
use crate::error::{StartError, StopReason};
use crate::handle::{Handle, Node};
use crate::inbox::{Inbox, InboxLimits};
use crate::machinist::Machinist;
use crate::memory_log::MemoryLog;
use crate::network::{Endpoint, InProcess, Network};
use crate::panics::message_of;
use crate::recovery;
use crate::remote::Remote;
use crate::replica::{Machine, Replica, Replicated};
use crate::replies::ReplyTo;
use crate::seed::SEEDED_AT;
use crate::shared::Shared;
use crate::snapshots::{Snapshots, named};

/// What a node is started with. Made by [`Node::builder`].
///
/// Required are where the node keeps its data ([`data_dir`](Self::data_dir) or
/// [`in_memory`](Self::in_memory)), who is there when a new cluster starts
/// ([`members`](Self::members)) or that this node waits to be added to one
/// ([`join`](Self::join)). Nodes reach each other over TCP, at the addresses of the members, unless
/// something else is said.
pub struct Builder<M> {
    machine: M,
    id: NodeId,
    cluster: String,
    place: Option<Place>,
    first: Option<First>,
    network: Reach,
    listen: Option<String>,
    address_of: AddressOf,
    log_disk: Option<Arc<dyn Disk>>,
    unsynced: bool,
    former_cluster: Option<String>,
    apply: Apply,
    tuning: Tuning,
    requests_max: usize,
    messages_max: usize,
}

/// Finds the address in what the membership says of a member.
pub(crate) type AddressOf = fn(&[u8]) -> String;

/// It is nothing but the address.
pub(crate) fn whole(context: &[u8]) -> String {
    String::from_utf8_lossy(context).into_owned()
}

/// How nodes reach each other.
enum Reach {
    Tcp(Box<dyn FnOnce(&mut TcpSettings) + Send>),
    InProcess(InProcess),
    Own(Box<dyn FnOnce(Identity) -> Arc<dyn Transport> + Send>),
}

enum Place {
    Memory,
    Directory(PathBuf),
}

enum First {
    Members(Vec<(NodeId, String)>),
    Join(Vec<(NodeId, String)>),
}

/// Who runs the state machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Apply {
    /// The node's own task if the log is in memory, else a thread.
    #[default]
    Auto,
    /// The node's own task: fastest, for machines that need microseconds for a batch. A slow one
    /// delays heartbeats, and so provokes elections.
    Inline,
    /// A thread of its own.
    Thread,
}

/// All that can be tuned. The defaults suit a cluster in one data centre.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// Timeouts and limits of the consensus core. `cluster`, `node` and `incarnation` are set by the
    /// library.
    pub core: Config,
    /// Limits of forwarding and reads, and how much of the log is kept. The library's default for
    /// `keep_for_followers` is 200,000; `snapshots` is set by the library from the two below.
    pub node: Settings,
    /// Entries after which a snapshot of the state machine is taken. Default 100,000.
    pub snapshot_entries: u64,
    /// Bytes of entries after which one is taken. Default 64 MiB.
    pub snapshot_bytes: u64,
    /// How long a proposal waits for a leader that can take it, before it fails as
    /// [`NotLeader`](crate::ProposeError::NotLeader). Default 5 s.
    pub leader_wait: Duration,
    /// How long a session's proposal is tried. Default 30 s.
    pub session_wait: Duration,
    /// Most sessions in the cluster; if more are opened, the least recently used ends. It goes with
    /// the command that opens a session, so members need not agree on it. Default 65,536.
    pub sessions_max: u32,
    /// Size of a segment of the log. Default 64 MiB.
    pub segment_bytes: u64,
}

impl<M: Machine> Builder<M> {
    pub(crate) fn new(id: NodeId, machine: M) -> Self {
        let tuning = Tuning {
            core: Config::new(ClusterId(0), id, Incarnation(0)),
            node: Settings { keep_for_followers: 200_000, ..Settings::default() },
            snapshot_entries: 100_000,
            snapshot_bytes: 64 << 20,
            leader_wait: Duration::from_secs(5),
            session_wait: Duration::from_secs(30),
            sessions_max: 65_536,
            segment_bytes: 64 << 20,
        };
        Self {
            machine,
            id,
            cluster: "quorate".to_owned(),
            place: None,
            first: None,
            network: Reach::Tcp(Box::new(|_| {})),
            listen: None,
            address_of: whole,
            log_disk: None,
            unsynced: false,
            former_cluster: None,
            apply: Apply::Auto,
            tuning,
            requests_max: 65_536,
            messages_max: 8_192,
        }
    }

    /// Keeps log and snapshots in this directory, which is made if it does not exist. It belongs to
    /// this node alone, for all time: a directory that was lost is a new node under a new id.
    #[must_use]
    pub fn data_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.place = Some(Place::Directory(directory.into()));
        self
    }

    /// Keeps the log on this disk instead of in [`data_dir`](Self::data_dir), where snapshots stay:
    /// for tests with disks that are full or fail, such as [`MemoryDisk`](quorate_wal::MemoryDisk).
    #[must_use]
    pub fn log_disk(mut self, disk: Arc<dyn Disk>) -> Self {
        self.log_disk = Some(disk);
        self
    }

    /// Never waits for the log's disk: what was acknowledged is lost when power is, and the node then has to be thrown away.
    /// For tests, and for data that can be had again.
    #[must_use]
    pub fn unsynced_log(mut self) -> Self {
        self.unsynced = true;
        self
    }

    /// Gives up all other members, for good: with what its directory holds, this node becomes the only member of the cluster
    /// that it is started for ([`cluster`](Self::cluster)), which must have another name than the `former` one. For when a
    /// majority is lost and will not come back.
    ///
    /// Everything in the log counts as committed from now on: what was acknowledged and has reached this node is kept, and
    /// something may be kept that nobody was told of. What has not reached it is lost, so take the member that has most. The
    /// new name keeps the others out, should they come back: with the old one, they could outvote this node and undo what it
    /// has done since.
    ///
    /// One entry of the log says it, and it is durable before the node starts. A start that finds it said already changes
    /// nothing, so a crash in between is no harm; but a member that was added since is given up as well. A directory without
    /// a log starts as if nothing had been said here.
    #[must_use]
    pub fn abandon_others(mut self, former: impl Into<String>) -> Self {
        self.former_cluster = Some(former.into());
        self
    }

    /// Keeps nothing on disk: for tests. A node that was stopped is gone, and must not come back
    /// under its id.
    #[must_use]
    pub fn in_memory(mut self) -> Self {
        self.place = Some(Place::Memory);
        self
    }

    /// The first members of a new cluster, each with its address; this node is one of them. All of
    /// them must be started with the same list of ids: nodes that were told of others refuse each other,
    /// and both say so in an event ([`RefusalCode::OtherFounders`](quorate_transport::RefusalCode)), as
    /// long as their logs go back to the beginning. A node whose directory holds a log already goes on
    /// where it was, whatever this says. So a wrong address in the first list stays wrong: as long as
    /// nothing was committed, delete the directories of all of them and start again; later, correct the
    /// address with [`ChangeStep::SetContext`](crate::ChangeStep::SetContext) at the leader.
    #[must_use]
    pub fn members<I, A>(mut self, members: I) -> Self
    where
        I: IntoIterator<Item = (u64, A)>,
        A: AsRef<str>,
    {
        self.first = Some(First::Members(listed(members)));
        self
    }

    /// This node waits to be added to a cluster by one of its members; see
    /// [`Handle::add_learner`]. `contacts` are members with their addresses, so that it can answer
    /// whoever of them leads. It needs to be told where to [`listen`](Self::listen).
    #[must_use]
    pub fn join<I, A>(mut self, contacts: I) -> Self
    where
        I: IntoIterator<Item = (u64, A)>,
        A: AsRef<str>,
    {
        self.first = Some(First::Join(listed(contacts)));
        self
    }

    /// Where to listen for peers: `host:port`, or several of them separated by commas. Default: this node's address among the members. For
    /// nodes that are reached at another address than they can listen at.
    #[must_use]
    pub fn listen(mut self, address: impl Into<String>) -> Self {
        self.listen = Some(address.into());
        self
    }

    /// Where a member is dialled, from what the membership says of it. By default that is an address and
    /// nothing else; with this it can say more, names or several addresses for example. The same at
    /// every member.
    #[must_use]
    pub fn address_of(mut self, address_of: fn(&[u8]) -> String) -> Self {
        self.address_of = address_of;
        self
    }

    /// Changes the settings of the TCP transport.
    #[must_use]
    pub fn tcp(mut self, tune: impl FnOnce(&mut TcpSettings) + Send + 'static) -> Self {
        self.network = Reach::Tcp(Box::new(tune));
        self
    }

    /// Brings a transport of your own; it is told who this node is.
    #[must_use]
    pub fn transport(
        mut self,
        make: impl FnOnce(Identity) -> Arc<dyn Transport> + Send + 'static,
    ) -> Self {
        self.network = Reach::Own(Box::new(make));
        self
    }

    /// The cluster's name; nodes of other clusters are refused. Default "quorate".
    #[must_use]
    pub fn cluster(mut self, name: impl Into<String>) -> Self {
        self.cluster = name.into();
        self
    }

    /// Nodes reach each other inside this process, through `network`.
    #[must_use]
    pub fn in_process(mut self, network: &InProcess) -> Self {
        self.network = Reach::InProcess(network.clone());
        self
    }

    /// Who runs the state machine. Default [`Apply::Auto`].
    #[must_use]
    pub fn apply(mut self, apply: Apply) -> Self {
        self.apply = apply;
        self
    }

    /// Most requests that are under way at this node; more are refused as busy. Default 65,536. Those
    /// that the node has not looked at yet may carry `unapplied_bytes_max` in all, besides.
    #[must_use]
    pub fn requests_max(mut self, requests_max: usize) -> Self {
        self.requests_max = requests_max;
        self
    }

    /// Changes what can be tuned.
    #[must_use]
    pub fn tune(mut self, tune: impl FnOnce(&mut Tuning)) -> Self {
        tune(&mut self.tuning);
        self
    }

    /// Starts the node. It takes part as soon as this returns; wait for a leader, if you want to, with
    /// [`Handle::wait_for_leader`].
    ///
    /// # Errors
    ///
    /// See [`StartError`].
    pub async fn start(self) -> Result<Node<M>, StartError> {
        // Opening a log waits for the disk.
        let runtime = tokio::runtime::Handle::current();
        let prepared = tokio::task::spawn_blocking(move || self.prepare(&runtime)).await;
        prepared.unwrap_or_else(|failed| {
            let message = match failed.try_into_panic() {
                Ok(panic) => format!("the start panicked: {}", message_of(&*panic)),
                Err(ended) => format!("the start was given up: {ended}"),
            };
            Err(StartError::Machine(StopReason::Internal { message }))
        })
    }

    fn prepare(self, runtime: &tokio::runtime::Handle) -> Result<Node<M>, StartError> {
        let id = self.id;
        let missing = |why: &str| StartError::Setting { why: why.to_owned() };
        if id == NodeId(0) {
            return Err(missing("a node's id must not be zero"));
        }
        let place = self.place.ok_or_else(|| {
            missing("say where the node keeps its data: `data_dir`, or `in_memory` for tests")
        })?;
        let (first, contacts) = match self.first {
            Some(First::Members(members)) => (first_membership(id, &members)?, members),
            Some(First::Join(contacts)) => (Membership::default(), contacts),
            None => {
                return Err(missing(
                    "say who is there: `members` for a new cluster, or `join` to be added to one",
                ));
            }
        };
        let address_of = self.address_of;
        if matches!(self.network, Reach::Tcp(_)) {
            check_addresses(id, &contacts, self.listen.as_deref(), address_of)?;
        }
        let first = Arc::new(first);
        let cluster = ClusterId(name_hash(&self.cluster));
        if self.former_cluster.as_ref() == Some(&self.cluster) {
            return Err(missing("a node that gives up the others needs a new name of its cluster"));
        }
        let own = contacts.iter().find(|(node, _)| *node == id).map(|(_, context)| context.clone());
        let replica = Arc::new(Replica::open(self.machine).map_err(StartError::Machine)?);
        let untyped: Arc<dyn Replicated> = replica.clone();
        let boot_nonce = random()?;
        let tuning = self.tuning;

        let (log, recovered, snapshots, incarnation) = match place {
            Place::Memory => {
                if replica.applied().index > Index::ZERO {
                    return Err(missing("a state machine with data on disk needs `data_dir`"));
                }
                let recovered = Recovered::new(first, boot_nonce);
                let log = Log::Memory(Arc::new(MemoryLog::default()));
                let incarnation = Incarnation(random()?.max(1));
                (log, recovered, Snapshots::in_memory(), incarnation)
            }
            Place::Directory(directory) => {
                let snapshots = Snapshots::in_directory(directory.join("snapshots"))?;
                let disk = match self.log_disk {
                    Some(disk) => disk,
                    None => {
                        let directory = directory.join("log");
                        let disk = RealDisk::new(&directory);
                        Arc::new(disk.map_err(named("making", &directory))?)
                    }
                };
                let disk = if self.unsynced { Arc::new(Unsynced::new(disk)) } else { disk };
                let former = self.former_cluster.as_deref().map(name_hash).map(ClusterId);
                let options = Options {
                    segment_bytes: tuning.segment_bytes,
                    former_cluster: former,
                    ..Options::new(cluster, id, random()?)
                };
                let context = Bytes::from(own.clone().unwrap_or_default());
                let alone = former.map(|_| &context);
                let opened = recovery::open(
                    disk, &options, &first, &*untyped, &snapshots, boot_nonce, alone,
                )?;
                let incarnation = opened.wal.identity().incarnation;
                let log = Log::Disk(DiskLog::new(opened.wal, recovery::GROUP));
                (log, opened.recovered, snapshots, incarnation)
            }
        };

        let snapshots = Arc::new(snapshots);
        let inbox = Arc::new(Inbox::new(InboxLimits {
            messages_max: self.messages_max,
            requests_max: self.requests_max,
            bytes_max: tuning.core.unapplied_bytes_max,
        }));
        let applied = recovered.applied;
        let founders = founders(&recovered);
        let core = Config { cluster, node: id, incarnation, ..tuning.core.clone() };
        // A machine that keeps nothing on disk lives on its snapshots, unless its log dies with it.
        let snapshots_of = |log: &Log| {
            let policy =
                SnapshotPolicy { entries: tuning.snapshot_entries, bytes: tuning.snapshot_bytes };
            (matches!(log, Log::Disk(_)) && !untyped.is_durable()).then_some(policy)
        };
        let settings = Settings { snapshots: snapshots_of(&log), ..tuning.node.clone() };
        let node = quorate_node::Node::new(core, settings, clock::now(), random()?, recovered)
            .map_err(StartError::Recovered)?;

        let asks = Arc::new(Asks::new(id, random()?, runtime.clone()));
        let shared =
            Arc::new(Shared::new(Arc::clone(&inbox), Arc::clone(&asks), log.clone(), applied));
        let dialled = matches!(self.network, Reach::Tcp(_)).then_some(address_of);
        let endpoint = Endpoint {
            node: id,
            cluster,
            incarnation,
            founders: Arc::clone(&founders),
            inbox: Arc::clone(&inbox),
            snapshots: Arc::clone(&snapshots),
            asks: Arc::clone(&asks),
            receiving: Arc::default(),
        };
        let listen = self.listen.or_else(|| own.map(|context| address_of(context.as_bytes())));
        let boot = boot_nonce;
        let identity = Identity { cluster, node: id, incarnation, boot, features: 0, founders };
        let network: Arc<dyn Network> = match self.network {
            Reach::InProcess(network) => network.join(endpoint)?,
            Reach::Own(make) => remote(make(identity), endpoint, &shared, &contacts, address_of)?,
            Reach::Tcp(tune) => {
                let listen = listen.ok_or_else(|| {
                    missing("say where this node listens for its peers: `listen`")
                })?;
                let mut settings = TcpSettings::new(listen);
                settings.seed = random()?;
                tune(&mut settings);
                let tcp = Tcp::bind(identity, settings).map_err(StartError::Transport)?;
                remote(Arc::new(tcp), endpoint, &shared, &contacts, address_of)?
            }
        };
        asks.connect(&network);
        // Only now: up to here a start may fail, and leaves nothing that runs.
        let ending = Ending::new(Arc::clone(&shared), log.clone());
        let name = format!("quorate-{id}");
        let log_thread = match &log {
            Log::Memory(_) => None,
            Log::Disk(log) => Some(log.run(&name, &inbox)?),
        };
        let machinist =
            Machinist::new(Arc::clone(&untyped), Arc::clone(&snapshots), Arc::clone(&inbox));
        let inline = match self.apply {
            Apply::Auto => matches!(log, Log::Memory(_)) && !untyped.is_durable(),
            Apply::Inline => true,
            Apply::Thread => false,
        };
        let apply_thread = if inline { None } else { Some(machinist.share().run(&name)?) };
        // Whoever is alone need not wait for others to be heard from.
        if node.raft().membership().voters() == [id] {
            let _ = inbox.request(Request::Campaign, ReplyTo::Nobody);
        }
        let driver = Driver {
            node,
            shared: Arc::clone(&shared),
            log,
            machinist,
            apply_thread,
            log_thread,
            network,
            snapshots: Arc::clone(&snapshots),
            state: State::default(),
            ending,
        };
        runtime.spawn(driver.run());
        Ok(Node::new(Handle::new(shared, replica, &tuning, dialled)))
    }
}

pub(crate) fn listed<A: AsRef<str>>(
    members: impl IntoIterator<Item = (u64, A)>,
) -> Vec<(NodeId, String)> {
    members.into_iter().map(|(id, address)| (NodeId(id), address.as_ref().to_owned())).collect()
}

/// Finds nonsense before it becomes a member that nobody reaches.
fn check_addresses(
    id: NodeId,
    contacts: &[(NodeId, String)],
    listen: Option<&str>,
    address_of: AddressOf,
) -> Result<(), StartError> {
    for (node, context) in contacts {
        let address = address_of(context.as_bytes());
        // The port that the system chooses is nobody's business where there are no others.
        let checked = if *node == id && contacts.len() == 1 {
            addresses::check_own(&address)
        } else {
            addresses::check(&address)
        };
        checked.map_err(|why| StartError::Setting { why: format!("member {node}: {why}") })?;
    }
    let listen = listen.map_or(Ok(()), addresses::check_own);
    listen.map_err(|why| StartError::Setting { why: format!("`listen`: {why}") })
}

/// The voters that the cluster was founded with, if the log still goes back that far. The first entry
/// of a log is a leader's no-op, so behind it the configuration is the first one still.
fn founders(recovered: &Recovered) -> Arc<[NodeId]> {
    let start = &recovered.snapshot;
    let known = start.id.index <= SEEDED_AT.index;
    if known { start.membership.voters().into() } else { Arc::default() }
}

fn remote(
    transport: Arc<dyn Transport>,
    endpoint: Endpoint,
    shared: &Arc<Shared>,
    contacts: &[(NodeId, String)],
    address_of: AddressOf,
) -> Result<Arc<dyn Network>, StartError> {
    let contacts = contacts.iter().map(|(node, address)| Peer {
        node: *node,
        address: address_of(address.as_bytes()),
        incarnation: None,
    });
    let remote =
        Remote::start(transport, endpoint, Arc::clone(shared), contacts.collect(), address_of);
    Ok(Arc::new(remote.map_err(StartError::Transport)?))
}

pub(crate) fn first_membership(
    id: NodeId,
    members: &[(NodeId, String)],
) -> Result<Membership, StartError> {
    let setting = |why: String| Err(StartError::Setting { why });
    let mut by_id = BTreeMap::new();
    for (node, address) in members {
        let (node, context) = (*node, Bytes::copy_from_slice(address.as_bytes()));
        if node == NodeId(0) {
            return setting("a node's id must not be zero".to_owned());
        }
        let member = Member { context, ..Member::new(MemberRole::Voter) };
        if by_id.insert(node, member).is_some() {
            return setting(format!("node {node} is named twice among the members"));
        }
    }
    if !by_id.contains_key(&id) {
        return setting(format!("node {id} is not among the members; to be added, use `join`"));
    }
    Ok(Membership::bootstrap(by_id))
}

/// FNV-1a: the same name gives the same number everywhere and always.
pub(crate) fn name_hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

pub(crate) fn random() -> std::io::Result<u64> {
    let mut bytes = [0u8; 8];
    let count = getrandom(&mut bytes, GetRandomFlags::empty()).map_err(|error| {
        let error = std::io::Error::from(error);
        std::io::Error::new(error.kind(), format!("the system gives no random bytes: {error}"))
    })?;
    if count < bytes.len() {
        return Err(std::io::Error::other("the system gives too few random bytes"));
    }
    Ok(u64::from_le_bytes(bytes))
}

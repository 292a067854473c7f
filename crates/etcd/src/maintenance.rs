//! The service that is about the member which is asked.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use quorate::{MemberRole, NodeId};
use quorate_kv::{Alarm, Command, MemberId, Revision};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use crate::convert;
use crate::kv::on_thread;
use crate::member::Member;
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::maintenance_server::Maintenance;
use crate::proto::host::{HostCommand, host_command, outcome};
use crate::status;

/// See the module.
pub(crate) struct MaintenanceService(pub(crate) Member);

/// Bytes of a snapshot in one message.
const BLOB_BYTES: usize = 32 << 10;
/// Messages of a snapshot that wait to be sent.
const BLOBS_MAX: usize = 8;
/// What the length of a snapshot is a multiple of, the hash behind it apart.
pub(crate) const SNAPSHOT_ALIGN: u64 = 512;

/// Major and minor version of a text.
fn version_of(text: &str) -> Option<(u64, u64)> {
    let mut parts = text.split('.').map(|part| part.parse::<u64>().ok());
    match (parts.next()??, parts.next()??, parts.next(), parts.next()) {
        (major, minor, None | Some(Some(_)), None) => Some((major, minor)),
        _ => None,
    }
}

/// Whether both have the same major and minor number.
pub(crate) fn is_of(version: &str, target: &str) -> bool {
    version_of(version).is_some_and(|version| version_of(target) == Some(version))
}

impl Member {
    /// What this member has to complain about, as the status tells it.
    fn complaints(&self) -> Vec<String> {
        let mut errors = Vec::new();
        if self.leader().0.is_none() {
            errors.push(status::no_leader().message().to_owned());
        }
        for alarm in self.reader().alarms() {
            let kind = convert::alarm_type(alarm.kind).as_str_name();
            errors.push(format!("memberID:{} alarm:{kind}", alarm.member.0));
        }
        errors
    }

    /// A consistent image in a file that nobody else sees, and its length.
    fn spool(&self) -> io::Result<(File, u64)> {
        let directory = self.config().data_dir.join("member");
        let path = directory.join(format!("sending-{:016x}", self.new_id()));
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        fs::remove_file(&path)?;
        self.0.data.flush_now()?;
        let mut out = BufWriter::with_capacity(1 << 18, file);
        let written = self.reader().snapshot().write_to(&mut out);
        let written = written.map_err(|why| io::Error::other(why.to_string()))?;
        let padding = written.next_multiple_of(SNAPSHOT_ALIGN) - written;
        out.write_all(&vec![0; usize::try_from(padding).unwrap_or(0)])?;
        let mut file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.seek(SeekFrom::Start(0))?;
        Ok((file, written + padding))
    }

    /// Sends a snapshot, and its hash behind it.
    fn send_snapshot(
        &self,
        to: &mpsc::Sender<Result<pb::SnapshotResponse, Status>>,
    ) -> io::Result<()> {
        let (mut file, bytes) = self.spool()?;
        let version = self.config().api_version.clone();
        let mut hash = Sha256::new();
        let mut left = bytes;
        let send = |blob: Bytes, remaining_bytes| {
            let version = version.clone();
            let response = pb::SnapshotResponse { header: None, remaining_bytes, blob, version };
            to.blocking_send(Ok(response)).is_ok()
        };
        while left > 0 {
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(BLOB_BYTES);
            let mut blob = vec![0; count];
            file.read_exact(&mut blob)?;
            hash.update(&blob);
            left -= count as u64;
            if !send(blob.into(), left) {
                // Nobody wants it any more.
                return Ok(());
            }
        }
        send(Bytes::copy_from_slice(&hash.finalize()), 0);
        Ok(())
    }
}

#[tonic::async_trait]
impl Maintenance for MaintenanceService {
    async fn alarm(
        &self,
        request: Request<pb::AlarmRequest>,
    ) -> Result<Response<pb::AlarmResponse>, Status> {
        use pb::alarm_request::AlarmAction;
        let request = request.into_inner();
        let kind = convert::alarm_kind(request.alarm);
        let member = MemberId(request.member_id);
        let alarm = match AlarmAction::try_from(request.action) {
            Ok(AlarmAction::Get) => Alarm::List(kind),
            Ok(AlarmAction::Activate) => Alarm::Activate(member, kind),
            Ok(AlarmAction::Deactivate) => Alarm::Deactivate(member, kind),
            Err(_) => {
                let header = self.0.header_now();
                return Ok(Response::new(pb::AlarmResponse { header, alarms: Vec::new() }));
            }
        };
        match self.0.propose(&Command::Alarm(alarm)).await? {
            outcome::Reply::Alarm(mut response) => {
                self.0.complete(&mut response.header);
                Ok(Response::new(response))
            }
            _ => Err(status::confused()),
        }
    }

    async fn status(
        &self,
        _: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        let node = self.0.0.node.status().await.map_err(|_| status::stopped())?;
        let reader = self.0.reader();
        let in_use = reader.disk_bytes_in_use();
        let size = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let config = self.0.config();
        let quota = match config.quota_backend_bytes {
            0 => crate::config::QUOTA_DEFAULT_BYTES,
            bytes => bytes,
        };
        let attributes = self.0.attributes();
        // A member that is about to become older writes what the older one reads.
        let storage_version = match (&attributes.cluster_version, &attributes.downgrade) {
            (Some(version), Some(target)) if is_of(version, target) => version.clone(),
            (Some(_), _) => config.api_version.clone(),
            (None, _) => String::new(),
        };
        Ok(Response::new(pb::StatusResponse {
            header: self.0.header_now(),
            version: config.api_version.clone(),
            // Never less than what is in use, and neither is ever nothing: clients divide by them.
            db_size: size(self.0.db_bytes().max(in_use).max(1)),
            leader: node.leader.map_or(0, |leader| leader.0),
            raft_index: node.commit_index.0,
            raft_term: node.term.0,
            raft_applied_index: self.0.0.data.applied_index(),
            errors: self.0.complaints(),
            db_size_in_use: size(in_use.max(1)),
            is_learner: self.0.is_learner(),
            storage_version,
            db_size_quota: quota,
            downgrade_info: Some(pb::DowngradeInfo {
                enabled: attributes.downgrade.is_some(),
                target_version: attributes.downgrade.clone().unwrap_or_default(),
            }),
        }))
    }

    async fn defragment(
        &self,
        _: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        let data = Arc::clone(&self.0.0.data);
        match on_thread(move || data.defragment()).await? {
            Ok(true) => Ok(Response::new(pb::DefragmentResponse { header: self.0.header_now() })),
            // Whoever asks again will find it smaller.
            Ok(false) => Err(status::stopped()),
            Err(why) if why.is_harmless() => Err(Status::failed_precondition(why.to_string())),
            Err(why) => Err(status::broken(why)),
        }
    }

    async fn hash(
        &self,
        _: Request<pb::HashRequest>,
    ) -> Result<Response<pb::HashResponse>, Status> {
        let reader = self.0.reader();
        let began = Instant::now();
        let hash = on_thread(move || reader.hash()).await?.map_err(status::read)?;
        self.0.metrics().hashes.observe(began.elapsed());
        Ok(Response::new(pb::HashResponse {
            header: self.0.header(hash.revision.0),
            hash: hash.hash,
        }))
    }

    async fn hash_kv(
        &self,
        request: Request<pb::HashKvRequest>,
    ) -> Result<Response<pb::HashKvResponse>, Status> {
        let revision = Revision(request.into_inner().revision);
        let reader = self.0.reader();
        let began = Instant::now();
        let hash = on_thread(move || reader.hash_kv(revision)).await?.map_err(status::read)?;
        self.0.metrics().revision_hashes.observe(began.elapsed());
        Ok(Response::new(pb::HashKvResponse {
            header: self.0.header(hash.revision.0),
            hash: hash.hash,
            compact_revision: hash.compact_revision.0,
            hash_revision: hash.hash_revision.0,
        }))
    }

    type SnapshotStream = Blobs;

    async fn snapshot(&self, _: Request<pb::SnapshotRequest>) -> Result<Response<Blobs>, Status> {
        let (sender, blobs) = mpsc::channel(BLOBS_MAX);
        let member = self.0.clone();
        tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            let sent = member.send_snapshot(&sender);
            member.metrics().snapshots.observe(began.elapsed());
            if let Err(why) = sent {
                let why = Status::internal(format!("the snapshot could not be written: {why}"));
                let _ = sender.blocking_send(Err(why));
            }
        });
        Ok(Response::new(Blobs(blobs)))
    }

    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        let target = request.into_inner().target_id;
        if !self.0.leads() {
            return Err(status::not_leader());
        }
        let membership = self.0.0.node.membership();
        let member = membership.member(NodeId(target));
        if !member.is_some_and(|member| member.role == MemberRole::Voter) {
            return Err(status::bad_transferee());
        }
        if target != self.0.member_id() {
            let limit = self.0.0.request_timeout;
            let moved = tokio::time::timeout(limit, self.0.0.node.transfer(target)).await;
            if !matches!(moved, Ok(Ok(_))) {
                return Err(status::transfer_timed_out());
            }
        }
        Ok(Response::new(pb::MoveLeaderResponse { header: None }))
    }

    async fn downgrade(
        &self,
        request: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, Status> {
        use pb::downgrade_request::DowngradeAction;
        let request = request.into_inner();
        let action =
            DowngradeAction::try_from(request.action).map_err(|_| status::unknown_method())?;
        let propose = async |target: String| {
            let command = Some(host_command::Command::Downgrade(target));
            self.0.propose_host(HostCommand { command }).await
        };
        if action == DowngradeAction::Cancel {
            // Nothing is to be taken back if nothing was begun, and nobody minds.
            if self.0.attributes().downgrade.is_some() {
                propose(String::new()).await?;
            }
            return Ok(Response::new(self.downgrade_answer()));
        }
        let target = version_of(&request.version).ok_or_else(status::bad_downgrade_version)?;
        self.0.linearizable().await?;
        let attributes = self.0.attributes();
        let (major, minor) = attributes
            .cluster_version
            .as_deref()
            .and_then(version_of)
            .ok_or_else(status::no_cluster_version)?;
        if Some(target) != minor.checked_sub(1).map(|minor| (major, minor)) {
            return Err(status::bad_downgrade_target());
        }
        if attributes.downgrade.is_some() {
            return Err(status::downgrade_under_way());
        }
        // As it was when it was asked: the leader takes it down next.
        let answer = self.downgrade_answer();
        if action == DowngradeAction::Enable {
            propose(format!("{}.{}.0", target.0, target.1)).await?;
        }
        Ok(Response::new(answer))
    }
}

impl MaintenanceService {
    fn downgrade_answer(&self) -> pb::DowngradeResponse {
        let version = self.0.cluster_version();
        let version = version.as_deref().and_then(version_of);
        let version = version.map(|(major, minor)| format!("{major}.{minor}"));
        pb::DowngradeResponse { header: self.0.header_now(), version: version.unwrap_or_default() }
    }
}

/// The messages of a snapshot.
pub(crate) struct Blobs(mpsc::Receiver<Result<pb::SnapshotResponse, Status>>);

impl Stream for Blobs {
    type Item = Result<pb::SnapshotResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_two_or_three_numbers() {
        assert_eq!(version_of("3.6"), Some((3, 6)));
        assert_eq!(version_of("3.6.1"), Some((3, 6)));
        for bad in ["", "3", "3.x", "3.6.x", "3.6.1.2", "v3.6"] {
            assert_eq!(version_of(bad), None, "{bad}");
        }
    }
}

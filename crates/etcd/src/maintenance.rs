//! The service that is about the member which is asked.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

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
use crate::proto::host::outcome;
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
        let in_use =
            on_thread(move || reader.disk_bytes_in_use()).await?.map_err(status::broken)?;
        let size = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let config = self.0.config();
        let quota = match config.quota_backend_bytes {
            0 => crate::config::QUOTA_DEFAULT_BYTES,
            bytes => bytes,
        };
        let storage_version =
            self.0.cluster_version().map(|_| config.api_version.clone()).unwrap_or_default();
        Ok(Response::new(pb::StatusResponse {
            header: self.0.header_now(),
            version: config.api_version.clone(),
            // Never less than what is in use, and neither is ever nothing: clients divide by them.
            db_size: size(self.0.measure_db().max(in_use).max(1)),
            leader: node.leader.map_or(0, |leader| leader.0),
            raft_index: node.commit_index.0,
            raft_term: node.term.0,
            raft_applied_index: self.0.0.data.applied_index(),
            errors: self.0.complaints(),
            db_size_in_use: size(in_use.max(1)),
            is_learner: self.0.is_learner(),
            storage_version,
            db_size_quota: quota,
            downgrade_info: Some(pb::DowngradeInfo::default()),
        }))
    }

    async fn defragment(
        &self,
        _: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        let data = Arc::clone(&self.0.0.data);
        match on_thread(move || data.defragment()).await? {
            Ok(true) => {
                self.0.measure_db();
                Ok(Response::new(pb::DefragmentResponse { header: self.0.header_now() }))
            }
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
        let hash = on_thread(move || reader.hash()).await?.map_err(status::read)?;
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
        let hash = on_thread(move || reader.hash_kv(revision)).await?.map_err(status::read)?;
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
            if let Err(why) = member.send_snapshot(&sender) {
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
        let version = self.0.cluster_version();
        let current = version.as_deref().and_then(version_of);
        let answer = || {
            let version = current.map(|(major, minor)| format!("{major}.{minor}"));
            let version = version.unwrap_or_default();
            Ok(Response::new(pb::DowngradeResponse { header: self.0.header_now(), version }))
        };
        let action =
            DowngradeAction::try_from(request.action).map_err(|_| status::unknown_method())?;
        if action == DowngradeAction::Cancel {
            return answer();
        }
        let target = version_of(&request.version).ok_or_else(status::bad_downgrade_version)?;
        let below = current.and_then(|(major, minor)| Some((major, minor.checked_sub(1)?)));
        if below != Some(target) {
            return Err(status::bad_downgrade_target());
        }
        match action {
            DowngradeAction::Validate => answer(),
            _ => Err(Status::unimplemented("downgrades of a running cluster are not there yet")),
        }
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

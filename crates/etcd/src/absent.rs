//! Services that are not there yet: each call says so.

use std::pin::Pin;

use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use crate::member::Member;
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::auth_server::Auth;
use crate::proto::v3electionpb as election;
use crate::proto::v3electionpb::election_server::Election;
use crate::proto::v3lockpb as lock;
use crate::proto::v3lockpb::lock_server::Lock;

/// Users and roles: authentication is off, and cannot be turned on.
pub(crate) struct AuthService(pub(crate) Member);

/// Locks that the server waits for.
pub(crate) struct LockService;

/// Elections that the server waits for.
pub(crate) struct ElectionService;

const NO_AUTH: &str = "authentication is not there yet";
const NO_LOCK: &str = "locks by the server are not there yet; clients can use keys and leases";
const NO_ELECTION: &str =
    "elections by the server are not there yet; clients can use keys and leases";

macro_rules! absent {
    ($why:expr; $($call:ident($request:ty) -> $response:ty;)*) => {
        $(
            // What the attribute for asynchronous traits would make of it.
            fn $call<'a, 'b>(
                &'a self,
                _: Request<$request>,
            ) -> Pin<Box<dyn Future<Output = Result<Response<$response>, Status>> + Send + 'b>>
            where
                'a: 'b,
                Self: 'b,
            {
                Box::pin(std::future::ready(Err(Status::unimplemented($why))))
            }
        )*
    };
}

impl Auth for AuthService {
    absent! { NO_AUTH;
        auth_enable(pb::AuthEnableRequest) -> pb::AuthEnableResponse;
        auth_disable(pb::AuthDisableRequest) -> pb::AuthDisableResponse;
        user_add(pb::AuthUserAddRequest) -> pb::AuthUserAddResponse;
        user_get(pb::AuthUserGetRequest) -> pb::AuthUserGetResponse;
        user_list(pb::AuthUserListRequest) -> pb::AuthUserListResponse;
        user_delete(pb::AuthUserDeleteRequest) -> pb::AuthUserDeleteResponse;
        user_change_password(pb::AuthUserChangePasswordRequest) -> pb::AuthUserChangePasswordResponse;
        user_grant_role(pb::AuthUserGrantRoleRequest) -> pb::AuthUserGrantRoleResponse;
        user_revoke_role(pb::AuthUserRevokeRoleRequest) -> pb::AuthUserRevokeRoleResponse;
        role_add(pb::AuthRoleAddRequest) -> pb::AuthRoleAddResponse;
        role_get(pb::AuthRoleGetRequest) -> pb::AuthRoleGetResponse;
        role_list(pb::AuthRoleListRequest) -> pb::AuthRoleListResponse;
        role_delete(pb::AuthRoleDeleteRequest) -> pb::AuthRoleDeleteResponse;
        role_grant_permission(pb::AuthRoleGrantPermissionRequest) -> pb::AuthRoleGrantPermissionResponse;
        role_revoke_permission(pb::AuthRoleRevokePermissionRequest) -> pb::AuthRoleRevokePermissionResponse;
    }

    fn authenticate<'a, 'b>(
        &'a self,
        _: Request<pb::AuthenticateRequest>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<pb::AuthenticateResponse>, Status>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        let off = Status::failed_precondition("etcdserver: authentication is not enabled");
        Box::pin(std::future::ready(Err(off)))
    }

    fn auth_status<'a, 'b>(
        &'a self,
        _: Request<pb::AuthStatusRequest>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<pb::AuthStatusResponse>, Status>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            self.0.linearizable().await?;
            let header = self.0.header_now();
            // The revision of a table of users that was never changed.
            Ok(Response::new(pb::AuthStatusResponse { header, enabled: false, auth_revision: 1 }))
        })
    }
}

impl Lock for LockService {
    absent! { NO_LOCK;
        lock(lock::LockRequest) -> lock::LockResponse;
        unlock(lock::UnlockRequest) -> lock::UnlockResponse;
    }
}

impl Election for ElectionService {
    absent! { NO_ELECTION;
        campaign(election::CampaignRequest) -> election::CampaignResponse;
        proclaim(election::ProclaimRequest) -> election::ProclaimResponse;
        leader(election::LeaderRequest) -> election::LeaderResponse;
        resign(election::ResignRequest) -> election::ResignResponse;
        observe(election::LeaderRequest) -> Self::ObserveStream;
    }

    type ObserveStream =
        Pin<Box<dyn Stream<Item = Result<election::LeaderResponse, Status>> + Send>>;
}

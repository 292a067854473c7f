//! The calls of the API, as metrics name them.

/// One call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Method {
    /// With its package.
    pub(crate) service: &'static str,
    /// The name.
    pub(crate) name: &'static str,
    /// Which side sends more than one message.
    pub(crate) shape: Shape,
    /// What `etcd_server_request_duration_seconds` calls it, if it counts it.
    pub(crate) request: Option<&'static str>,
}

/// Which side sends more than one message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shape {
    /// None.
    Unary,
    /// The server.
    ServerStream,
    /// Both.
    BidiStream,
}

impl Shape {
    /// Its name in labels.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::ServerStream => "server_stream",
            Self::BidiStream => "bidi_stream",
        }
    }
}

macro_rules! methods {
    ($($service:literal { $($name:ident $shape:ident $(as $request:literal)?;)* })*) => {
        /// All of them.
        pub(crate) const METHODS: &[Method] = &[$($(
            Method {
                service: $service,
                name: stringify!($name),
                shape: Shape::$shape,
                request: methods!(@request $($request)?),
            },
        )*)*];
    };
    (@request) => { None };
    (@request $request:literal) => { Some($request) };
}

methods! {
    "etcdserverpb.KV" {
        Range Unary as "Range";
        RangeStream ServerStream;
        Put Unary as "Put";
        DeleteRange Unary as "DeleteRange";
        Txn Unary as "Txn";
        Compact Unary as "Compaction";
    }
    "etcdserverpb.Watch" {
        Watch BidiStream;
    }
    "etcdserverpb.Lease" {
        LeaseGrant Unary as "LeaseGrant";
        LeaseRevoke Unary as "LeaseRevoke";
        LeaseKeepAlive BidiStream;
        LeaseTimeToLive Unary;
        LeaseLeases Unary;
    }
    "etcdserverpb.Cluster" {
        MemberAdd Unary;
        MemberRemove Unary;
        MemberUpdate Unary;
        MemberList Unary;
        MemberPromote Unary;
    }
    "etcdserverpb.Maintenance" {
        Alarm Unary as "Alarm";
        Status Unary;
        Defragment Unary;
        Hash Unary;
        HashKV Unary;
        Snapshot ServerStream;
        MoveLeader Unary;
        Downgrade Unary;
    }
    "etcdserverpb.Auth" {
        AuthEnable Unary as "AuthEnable";
        AuthDisable Unary as "AuthDisable";
        AuthStatus Unary as "AuthStatus";
        Authenticate Unary as "Authenticate";
        UserAdd Unary as "AuthUserAdd";
        UserGet Unary as "AuthUserGet";
        UserList Unary as "AuthUserList";
        UserDelete Unary as "AuthUserDelete";
        UserChangePassword Unary as "AuthUserChangePassword";
        UserGrantRole Unary as "AuthUserGrantRole";
        UserRevokeRole Unary as "AuthUserRevokeRole";
        RoleAdd Unary as "AuthRoleAdd";
        RoleGet Unary as "AuthRoleGet";
        RoleList Unary as "AuthRoleList";
        RoleDelete Unary as "AuthRoleDelete";
        RoleGrantPermission Unary as "AuthRoleGrantPermission";
        RoleRevokePermission Unary as "AuthRoleRevokePermission";
    }
    "v3lockpb.Lock" {
        Lock Unary;
        Unlock Unary;
    }
    "v3electionpb.Election" {
        Campaign Unary;
        Proclaim Unary;
        Leader Unary;
        Observe ServerStream;
        Resign Unary;
    }
    "grpc.health.v1.Health" {
        Check Unary;
        Watch ServerStream;
    }
}

/// Names of the status codes, by number.
pub(crate) const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

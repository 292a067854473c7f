//! The place where encryption goes.

use std::io;

use quorate_raft::NodeId;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::transport::BoxFuture;

/// Bytes both ways: a TCP connection, or something around one.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Puts a layer around each connection before the handshake: TLS, once it comes. The time that it
/// takes counts against [`Settings::dial_timeout`](super::Settings::dial_timeout).
pub trait Security: Send + Sync + 'static {
    /// The side that dialled. `host` is the name in the address, without the port.
    fn connect(
        &self,
        stream: TcpStream,
        peer: NodeId,
        host: &str,
    ) -> BoxFuture<'static, io::Result<Box<dyn Stream>>>;

    /// The side that was dialled.
    fn accept(&self, stream: TcpStream) -> BoxFuture<'static, io::Result<Box<dyn Stream>>>;
}

/// No protection: whoever reaches the port can read, and say that they are whom they like. For
/// networks that keep strangers out by other means.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

impl Security for Plain {
    fn connect(
        &self,
        stream: TcpStream,
        _: NodeId,
        _: &str,
    ) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> {
        Box::pin(async { Ok(Box::new(stream) as Box<dyn Stream>) })
    }

    fn accept(&self, stream: TcpStream) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> {
        Box::pin(async { Ok(Box::new(stream) as Box<dyn Stream>) })
    }
}

//! The place of TLS, held by something that is none: every byte is changed on the wire.
#![allow(clippy::unwrap_used, reason = "this is a test")]

mod support;

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use quorate_raft::NodeId;
use quorate_transport::{BoxFuture, Lane, Security, Settings, Stream, Transport};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use support::{Node, identity, noise, peer, settings, until};

/// Turns every byte around, and writes at most seven at a time.
struct Turned(TcpStream);

impl AsyncRead for Turned {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.0).poll_read(cx, buffer))?;
        buffer.filled_mut()[before..].iter_mut().for_each(|byte| *byte = !*byte);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Turned {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let turned: Vec<u8> = bytes.iter().take(7).map(|byte| !byte).collect();
        Pin::new(&mut self.0).poll_write(cx, &turned)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[derive(Default)]
struct Turning {
    dialled: Mutex<Vec<(NodeId, String)>>,
    accepted: AtomicUsize,
}

impl Security for Turning {
    fn connect(
        &self,
        stream: TcpStream,
        peer: NodeId,
        host: &str,
    ) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> {
        self.dialled.lock().unwrap().push((peer, host.to_owned()));
        Box::pin(async { Ok(Box::new(Turned(stream)) as Box<dyn Stream>) })
    }

    fn accept(&self, stream: TcpStream) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { Ok(Box::new(Turned(stream)) as Box<dyn Stream>) })
    }
}

#[tokio::test]
async fn frames_pass_through_a_layer() {
    let security = Arc::new(Turning::default());
    let turned = Settings { security: Arc::clone(&security) as Arc<dyn Security>, ..settings() };
    let (a, mut b) = (Node::with(identity(1), turned.clone()), Node::with(identity(2), turned));
    a.knows(&[&b]);
    b.knows(&[&a]);
    a.reaches(2).await;
    for len in [0, 10, 100_000] {
        let frame = noise(len, 1);
        a.transport.send(NodeId(2), Lane::Bulk, frame.clone());
        assert_eq!(b.next().await, (NodeId(1), Lane::Bulk, frame));
    }
    assert!(security.accepted.load(Ordering::Relaxed) >= 2);
    let dialled = security.dialled.lock().unwrap();
    assert!(dialled.contains(&(NodeId(2), "127.0.0.1".to_owned())), "{dialled:?}");
}

#[tokio::test]
async fn a_node_without_the_layer_is_no_node() {
    let turned = Settings { security: Arc::new(Turning::default()), ..settings() };
    let (a, b) = (Node::with(identity(1), turned), Node::new(2));
    a.transport.set_peers(&[peer(2, "127.0.0.1:1")]);
    b.knows(&[&a]);
    until("hung up on", || a.transport.metrics().not_ours > 0).await;
    until("said", || !b.last_error(1).is_empty()).await;
    assert_eq!(
        b.transport.send(NodeId(1), Lane::Bulk, Bytes::new()),
        quorate_transport::Sent::Down
    );
}

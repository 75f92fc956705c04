//! From a listener to connections that have begun to speak: a caller that connects and then says nothing is let go.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};

use super::TlsMetrics;
use super::connection::Connection;
use super::identity::Identity;
use super::metrics::Handshake;

/// Connections of one port that have not said anything yet; further ones wait in the system's queue.
const SILENT: usize = 10_000;

/// How long to wait after the system had no room for a connection: it has when others end.
const BREATH: Duration = Duration::from_millis(100);

/// Connections of one port. When it is dropped the port is closed.
pub(in crate::server) struct Accepting {
    address: SocketAddr,
    ready: mpsc::Receiver<Connection>,
}

/// Accepts connections, each with its first bytes read or its TLS handshake done within `patience`. The handle ends when
/// the port is closed.
pub(in crate::server) fn accept(
    listener: TcpListener,
    identity: Option<Arc<Identity>>,
    patience: Duration,
    metrics: TlsMetrics,
) -> io::Result<(Accepting, JoinHandle<()>)> {
    let address = listener.local_addr()?;
    // One at a time: what is not taken yet waits in its own task.
    let (send, ready) = mpsc::channel(1);
    let door = Door { identity, patience, metrics, send };
    Ok((Accepting { address, ready }, tokio::spawn(door.open(listener))))
}

impl Accepting {
    /// As a stream, for tonic.
    pub fn into_stream(self) -> impl Stream<Item = io::Result<Connection>> {
        ReceiverStream::new(self.ready).map(Ok)
    }
}

impl axum::serve::Listener for Accepting {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        match self.ready.recv().await {
            Some(connection) => (connection, self.address),
            // The task that accepts ends only with its port.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

/// What a new connection passes.
#[derive(Clone)]
struct Door {
    identity: Option<Arc<Identity>>,
    patience: Duration,
    metrics: TlsMetrics,
    send: mpsc::Sender<Connection>,
}

impl Door {
    async fn open(self, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(SILENT));
        // Dropped with the port, the set ends those that have not said anything.
        let mut entering = JoinSet::new();
        loop {
            while entering.try_join_next().is_some() {}
            let next = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (place, listener.accept().await)
            };
            tokio::select! {
                () = self.send.closed() => return,
                (place, accepted) = next => match (place, accepted) {
                    (Ok(place), Ok((stream, peer))) => {
                        entering.spawn(self.clone().enter(stream, peer, place));
                    }
                    (_, Err(error)) => {
                        tracing::debug!(%error, "a connection could not be accepted");
                        tokio::time::sleep(BREATH).await;
                    }
                    // Nobody closes the semaphore.
                    (Err(_), _) => return,
                },
            }
        }
    }

    async fn enter(self, stream: TcpStream, peer: SocketAddr, place: OwnedSemaphorePermit) {
        // Without TCP_NODELAY a small answer waits for the client's delayed acknowledgement: 40 ms on Linux.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, %peer, "TCP_NODELAY");
        }
        let connection = match &self.identity {
            Some(identity) => {
                let handshake = TlsAcceptor::from(identity.server()).accept(stream);
                match tokio::time::timeout(self.patience, handshake).await {
                    Ok(Ok(stream)) => {
                        self.metrics.shook(Handshake::Done);
                        Connection::Encrypted(Box::new(stream))
                    }
                    Ok(Err(error)) => {
                        tracing::debug!(%error, %peer, "a TLS handshake failed");
                        return self.metrics.shook(Handshake::Failed);
                    }
                    Err(_) => return self.metrics.shook(Handshake::TimedOut),
                }
            }
            None => {
                let said = tokio::time::timeout(self.patience, stream.peek(&mut [0])).await;
                if !matches!(said, Ok(Ok(1..))) {
                    return tracing::debug!(%peer, "a connection that says nothing is closed");
                }
                Connection::Plain(stream)
            }
        };
        drop(place);
        // An error: the port is closed.
        drop(self.send.send(connection).await);
    }
}

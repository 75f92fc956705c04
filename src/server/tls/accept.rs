//! From a listener to connections that have begun to speak HTTP: a caller that connects and then says nothing, or half a
//! thing, is let go. So is one that comes when there are as many as there may be.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::TlsMetrics;
use super::beginning::beginning;
use super::connection::{Connection, Stream};
use super::identity::Identity;
use super::metrics::{Handshake, Refused};

/// How long to wait after the system had no room for a connection: it has when others end.
const BREATH: Duration = Duration::from_millis(100);

/// Connections of one port. When it is dropped the port is closed.
pub(in crate::server) struct Accepting {
    address: SocketAddr,
    ready: mpsc::Receiver<Connection>,
}

/// Accepts connections, at most `most` at once, each with its TLS handshake done and its beginning read within `patience`.
/// The handle ends when the port is closed.
pub(in crate::server) fn accept(
    listener: TcpListener,
    identity: Option<Arc<Identity>>,
    most: usize,
    patience: Duration,
    metrics: TlsMetrics,
) -> io::Result<(Accepting, JoinHandle<()>)> {
    let address = listener.local_addr()?;
    // One at a time: what is not taken yet waits in its own task.
    let (send, ready) = mpsc::channel(1);
    let door = Door { identity, patience, metrics, send };
    Ok((Accepting { address, ready }, tokio::spawn(door.open(listener, most))))
}

impl Accepting {
    /// As a stream, for tonic.
    pub fn into_stream(self) -> impl tokio_stream::Stream<Item = io::Result<Connection>> {
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
    async fn open(self, listener: TcpListener, most: usize) {
        // A place is kept until the connection has ended.
        let places = Arc::new(Semaphore::new(most));
        // Dropped with the port, the set ends those that have not said enough.
        let mut entering = JoinSet::new();
        loop {
            while entering.try_join_next().is_some() {}
            tokio::select! {
                () = self.send.closed() => return,
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => match Arc::clone(&places).try_acquire_owned() {
                        Ok(place) => drop(entering.spawn(self.clone().enter(stream, peer, place))),
                        Err(_) => {
                            tracing::debug!(%peer, most, "a connection too many is closed");
                            self.metrics.refused(Refused::Full);
                        }
                    },
                    Err(error) => {
                        tracing::debug!(%error, "a connection could not be accepted");
                        tokio::time::sleep(BREATH).await;
                    }
                },
            }
        }
    }

    async fn enter(self, stream: TcpStream, peer: SocketAddr, place: OwnedSemaphorePermit) {
        // Without TCP_NODELAY a small answer waits for the client's delayed acknowledgement: 40 ms on Linux.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, %peer, "TCP_NODELAY");
        }
        let latest = Instant::now() + self.patience;
        let mut stream = match &self.identity {
            Some(identity) => {
                let handshake = TlsAcceptor::from(identity.server()).accept(stream);
                match tokio::time::timeout_at(latest, handshake).await {
                    Ok(Ok(stream)) => {
                        self.metrics.shook(Handshake::Done);
                        Stream::Encrypted(Box::new(stream))
                    }
                    Ok(Err(error)) => {
                        tracing::debug!(%error, %peer, "a TLS handshake failed");
                        return self.metrics.shook(Handshake::Failed);
                    }
                    Err(_) => return self.metrics.shook(Handshake::TimedOut),
                }
            }
            None => Stream::Plain(stream),
        };
        let Ok(Some(beginning)) = tokio::time::timeout_at(latest, beginning(&mut stream)).await else {
            tracing::debug!(%peer, "a connection that does not begin to speak HTTP is closed");
            return self.metrics.refused(Refused::Silent);
        };
        // An error: the port is closed.
        drop(self.send.send(Connection { beginning, stream, _place: place }).await);
    }
}

//! A client that vanished without a word.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::fake::{Fake, settings, start_cold};

/// What an HTTP/2 client says first: its preface and empty settings.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_whose_other_end_is_gone_is_closed() {
    let mut settings = settings();
    (settings.keepalive_interval_ms, settings.keepalive_timeout_ms) = (200, 200);
    let server = start_cold(settings, Duration::from_secs(20)).await;
    assert!(server.opener.open(Fake::default()));
    // It greets, and answers no ping.
    let mut gone = TcpStream::connect(server.public).await.unwrap();
    gone.write_all(HELLO).await.unwrap();
    let mut said = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), gone.read_to_end(&mut said)).await;
    assert!(read.is_ok(), "the connection is still open after {} bytes", said.len());
    assert!(server.answers().await);
}

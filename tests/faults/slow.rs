//! Clients that take their time.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::bundle;
use crate::fake::Client;
use crate::operated::{PATIENCE, channel, request};
use crate::process::Process;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_send_a_byte_at_a_time_are_cut_off_and_hold_up_nobody() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("tiny");
    bundle::write(&dir, 0.0);
    let process = tokio::task::spawn_blocking(move || {
        Process::start_with(&dir, |command| {
            command.env("REG4REC__SERVER__HANDSHAKE_TIMEOUT_MS", "500");
        })
    });
    let process = process.await.unwrap();
    let address = process.public.trim_start_matches("http://").to_owned();
    let slow: Vec<_> = (0..20)
        .map(|_| {
            let address = address.clone();
            tokio::spawn(async move {
                let (mut connection, began) = (TcpStream::connect(address).await.unwrap(), Instant::now());
                // The head of a request that never ends.
                for byte in b"POST /reg4rec.v1.RecommendationService/Recommend HTTP/1.1\r\nx: "
                    .iter()
                    .chain([b'a'; 2000].iter())
                {
                    if connection.write_all(&[*byte]).await.is_err() || began.elapsed() > PATIENCE {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                began.elapsed()
            })
        })
        .collect();
    let mut client = Client::new(channel(&process.public).await);
    for _ in 0..50 {
        client.recommend(request("")).await.unwrap();
    }
    for held in slow {
        let held = held.await.unwrap();
        assert!(held < PATIENCE, "a connection was held open for {held:?}");
    }
    client.recommend(request("")).await.unwrap();
}

//! gRPC-web on the public port, as a browser speaks it: by hand over HTTP/1.1.

use std::net::SocketAddr;

use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use reg4rec::wire::v1;

use crate::fake::{Fake, Running, settings, start, start_cold, user};

/// Sends a request with these headers and this body; answers status, headers in lower case, and the body without its
/// chunks.
async fn send(server: &Running, head: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
    send_to(server.public, head, body).await
}

async fn send_to(address: SocketAddr, head: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("{head}\r\nHost: shop\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap().to_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body = &answer[end + 4..];
    let body = if head.contains("transfer-encoding: chunked") { unchunked(body) } else { body.to_vec() };
    (status, head, body)
}

fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    loop {
        let end = body.windows(2).position(|two| two == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            return whole;
        }
        whole.extend_from_slice(&body[end + 2..end + 2 + size]);
        body = &body[end + 2 + size + 2..];
    }
}

/// A frame: a byte that says what it is, four of length, and what it holds.
fn framed(message: &impl Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    [&[0][..], &(bytes.len() as u32).to_be_bytes(), &bytes].concat()
}

/// Messages and trailers of a body.
fn frames(mut body: &[u8]) -> (Vec<Vec<u8>>, String) {
    let (mut messages, mut trailers) = (Vec::new(), String::new());
    while !body.is_empty() {
        let length = u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize;
        let held = &body[5..5 + length];
        match body[0] {
            0 => messages.push(held.to_vec()),
            0x80 => trailers.push_str(std::str::from_utf8(held).unwrap()),
            other => panic!("a frame of the kind {other}"),
        }
        body = &body[5 + length..];
    }
    (messages, trailers.to_lowercase().replace(' ', ""))
}

const POST: &str = "POST /reg4rec.v1.RecommendationService/Recommend HTTP/1.1";
const WEB: &str = "Content-Type: application/grpc-web+proto\r\nX-Grpc-Web: 1";

#[tokio::test]
async fn a_browser_is_answered_over_http_1() {
    let server = start(Fake::default()).await;
    let (status, head, body) = send(&server, &format!("{POST}\r\n{WEB}"), &framed(&user("u"))).await;
    assert_eq!(status, 200, "{head}");
    assert!(head.contains("content-type: application/grpc-web+proto"), "{head}");
    let (messages, trailers) = frames(&body);
    let answer = v1::RecommendResponse::decode(&messages[0][..]).unwrap();
    assert_eq!((messages.len(), answer.items.len()), (1, 10));
    assert!(trailers.contains("grpc-status:0"), "{trailers}");
}

#[tokio::test]
async fn a_refusal_reaches_the_browser_with_its_status() {
    let server = start(Fake::default()).await;
    let wrong = v1::RecommendRequest { k: Some(0), ..user("u") };
    let (status, head, body) = send(&server, &format!("{POST}\r\n{WEB}"), &framed(&wrong)).await;
    assert_eq!(status, 200);
    let told = format!("{}\n{}", head.replace(' ', ""), frames(&body).1);
    assert!(told.contains("grpc-status:3"), "{told}");
    assert!(server.answers().await);
}

#[tokio::test]
async fn what_is_neither_grpc_nor_grpc_web_is_refused() {
    let server = start(Fake::default()).await;
    for head in ["GET / HTTP/1.1", &format!("{POST}\r\nContent-Type: application/json")] {
        let (status, head, _) = send(&server, head, b"{}").await;
        assert_eq!(status, 415, "{head}");
    }
    let (status, head, body) = send(&server, &format!("{POST}\r\n{WEB}"), b"\x00\xff\xff\xff\xff half").await;
    let told = format!("{}\n{}", head.replace(' ', ""), frames(&body).1);
    assert!(status != 200 || !told.contains("grpc-status:0"), "{told}");
    assert!(server.answers().await);
}

#[tokio::test]
async fn only_pages_of_the_named_origins_may_ask() {
    let mut settings = settings();
    settings.web_origins = vec!["https://shop.example".into()];
    let server = start_cold(settings, std::time::Duration::from_secs(20)).await;
    assert!(server.opener.open(Fake::default()));
    let asking = |origin: &str| {
        format!(
            "OPTIONS /reg4rec.v1.RecommendationService/Recommend HTTP/1.1\r\nOrigin: {origin}\r\n\
             Access-Control-Request-Method: POST\r\n\
             Access-Control-Request-Headers: authorization,content-type,x-grpc-web"
        )
    };
    let (status, head, _) = send(&server, &asking("https://shop.example"), b"").await;
    assert_eq!(status, 200, "{head}");
    assert!(head.contains("access-control-allow-origin: https://shop.example"), "{head}");
    assert!(head.contains("x-grpc-web") && head.contains("authorization"), "{head}");
    let (_, head, _) = send(&server, &asking("https://thief.example"), b"").await;
    assert!(!head.contains("access-control-allow-origin"), "{head}");
    let from = |origin: &str| format!("{POST}\r\n{WEB}\r\nOrigin: {origin}");
    let (_, head, _) = send(&server, &from("https://shop.example"), &framed(&user("u"))).await;
    assert!(head.contains("access-control-expose-headers") && head.contains("grpc-status"), "{head}");
}

#[tokio::test]
async fn no_page_can_make_a_browser_call_by_a_plain_post() {
    let server = start(Fake::default()).await;
    let drain = "POST /reg4rec.v1.AdminService/Drain HTTP/1.1";
    let empty = [0; 5];
    // What a page may send to any origin without asking it first, and nothing at all.
    for said in ["Content-Type: text/plain", "Content-Type: application/x-www-form-urlencoded", "Accept: */*"] {
        for (address, call) in [(server.admin, drain), (server.public, POST)] {
            let (status, head, _) = send_to(address, &format!("{call}\r\n{said}"), &empty).await;
            assert_eq!(status, 415, "{said}: {head}");
        }
    }
    assert_eq!(server.page("/readyz").await, (200, "serving\n".to_owned()));
    for page in ["/metrics", "/healthz", "/"] {
        assert_eq!(server.page(page).await.0, 200, "{page}");
    }
    assert!(server.answers().await && server.health("").await.is_some());
}

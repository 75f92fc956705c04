//! What a connection must have said before it is served: the whole beginning of HTTP/2, or of a first request of HTTP/1.
//!
//! hyper waits without a limit for as much as tells the two apart.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// How HTTP/2 begins.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Longest head of a first request of HTTP/1, in bytes.
const LONGEST: usize = 32 << 10;

/// Reads until the beginning is whole, and answers all that was read. None: the connection ended before, or went on
/// without an end of the head.
pub(super) async fn beginning(stream: &mut (impl AsyncRead + Unpin)) -> Option<Bytes> {
    let mut said = BytesMut::with_capacity(1 << 10);
    let mut seen = 0;
    while !is_whole(&said, seen) {
        seen = said.len();
        if seen > LONGEST || stream.read_buf(&mut said).await.ok()? == 0 {
            return None;
        }
    }
    Some(said.freeze())
}

/// Whether hyper needs no more to answer, or to refuse, what was said. `seen`: so many bytes were not enough.
fn is_whole(said: &[u8], seen: usize) -> bool {
    if PREFACE.starts_with(said) {
        return said.len() == PREFACE.len();
    }
    if said.starts_with(PREFACE) {
        return true;
    }
    // Empty lines before a request mean nothing.
    let Some(start) = said.iter().position(|byte| !matches!(byte, b'\r' | b'\n')) else { return false };
    let new = &said[seen.saturating_sub(2).max(start)..];
    let ends = new.windows(2).any(|two| two == b"\n\n") || new.windows(3).any(|three| three == b"\n\r\n");
    // What no head may hold is refused where it stands.
    ends || new.iter().any(|byte| byte.is_ascii_control() && !matches!(byte, b'\r' | b'\n' | b'\t'))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(said: &[u8]) -> Option<Bytes> {
        let mut rest = said;
        beginning(&mut rest).await
    }

    #[tokio::test]
    async fn a_beginning_is_a_preface_or_a_whole_head() {
        let more = [PREFACE, b"\0\0\0\x04"].concat();
        for whole in [
            PREFACE,
            &more,
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\r\n\r\nGET / HTTP/1.1\r\n\r\nbody",
            b"GET / HTTP/1.1\n\n",
            b"PRI * HTTP/2.0\r\n\r\nGET",
            b"\x16\x03\x01",
        ] {
            assert_eq!(read(whole).await.as_deref(), Some(whole), "{:?}", whole.escape_ascii().to_string());
        }
        for part in [b"".as_slice(), b"P", &PREFACE[..23], b"G", b"GET / HTTP/1.1\r\nHost: a\r\n", b"\r\n\r\n\r\n"] {
            assert_eq!(read(part).await, None, "{:?}", part.escape_ascii().to_string());
        }
        assert_eq!(read(&b"a".repeat(1 << 20)).await, None);
    }

    #[test]
    fn an_end_is_found_however_it_comes_in_pieces() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for seen in 0..head.len() {
            assert!(!is_whole(&head[..seen], seen.saturating_sub(1)), "{seen}");
            assert!(is_whole(head, seen), "{seen}");
        }
        assert!(is_whole(b"GET / HTTP/1.1\n\n", 15));
    }
}

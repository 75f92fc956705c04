//! A browser asks by gRPC-web, from a page of another origin: a real one, without a window.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::fake::{Fake, settings, start_cold};

/// Names under which the browser is installed; `REG4REC_BROWSER` is another.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];

/// Asks for three items of the user "web", and writes into the page what came: status and the frames' bytes.
const PAGE: &str = r#"<!doctype html><meta charset="utf-8"><title>asking</title><pre id="told">nothing yet</pre><script>
const text = new TextEncoder().encode("web");
// RecommendRequest { user_id (2): "web", k (4): 3 }, in a frame: a byte 0, four of length, the message.
const message = new Uint8Array([2 << 3 | 2, text.length, ...text, 4 << 3, 3]);
const frame = new Uint8Array([0, 0, 0, 0, message.length, ...message]);
const told = document.getElementById("told");
fetch("ADDRESS/reg4rec.v1.RecommendationService/Recommend", {
  method: "POST", body: frame,
  headers: { "content-type": "application/grpc-web+proto", "x-grpc-web": "1" },
}).then(async answer => {
  const bytes = new Uint8Array(await answer.arrayBuffer());
  const shown = Array.from(bytes, byte => byte >= 32 && byte < 127 ? String.fromCharCode(byte) : ".").join("");
  told.textContent = `http ${answer.status} header ${answer.headers.get("grpc-status")} body ${shown} end`;
}).catch(error => { told.textContent = `failed: ${error} end`; });
</script>"#;

fn browser() -> Option<String> {
    let named = std::env::var("REG4REC_BROWSER").ok();
    let runs = |name: &String| {
        let mut command = Command::new(name);
        command
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    let found = named.into_iter().chain(NAMES.map(str::to_owned)).find(runs);
    if found.is_none() {
        eprintln!("skipped: there is no browser on the path ({NAMES:?}, or REG4REC_BROWSER)");
    }
    found
}

/// Serves one page to whoever asks.
async fn serve(listener: TcpListener, page: String) {
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}",
        page.len()
    );
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { return };
        let answer = answer.clone();
        tokio::spawn(async move {
            let mut asked = [0; 4096];
            if stream.read(&mut asked).await.is_ok() {
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
    }
}

/// The page as the browser holds it once its script is done.
fn shown(browser: &str, home: &Path, url: &str) -> String {
    let profile = format!("--user-data-dir={}", home.display());
    let mut command = Command::new(browser);
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]);
    command.args(["--disable-background-networking", "--disable-component-update", "--virtual-time-budget=20000"]);
    // It asks nobody but the two servers of this test.
    command.args(["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", &profile, "--dump-dom", url]);
    let output = command.output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_is_answered_where_its_page_is_allowed_to_ask() {
    let Some(browser) = browser() else { return };
    let home = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let mut allowed = settings();
    allowed.web_origins = vec![origin.clone()];
    let server = start_cold(allowed, Duration::from_secs(20)).await;
    assert!(server.opener.open(Fake::default()));
    let refusing = start_cold(settings(), Duration::from_secs(20)).await;
    assert!(refusing.opener.open(Fake::default()));
    let page = |address: std::net::SocketAddr| PAGE.replace("ADDRESS", &format!("http://{address}"));
    let pages = tokio::spawn(serve(listener, page(server.public)));
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stranger = format!("http://{}", other.local_addr().unwrap());
    let strangers = tokio::spawn(serve(other, page(refusing.public)));
    let (told, refused) = tokio::task::spawn_blocking(move || {
        let profile = |name: &str| home.path().join(name);
        (shown(&browser, &profile("one"), &origin), shown(&browser, &profile("other"), &stranger))
    })
    .await
    .unwrap();
    pages.abort();
    strangers.abort();
    assert!(told.contains("http 200") && told.contains("grpc-status:0"), "{told}");
    for rank in 0..3 {
        assert!(told.contains(&format!("web-{rank}")), "web-{rank} is not in {told}");
    }
    // The browser itself keeps an answer from a page that no setting names.
    assert!(refused.contains("failed: TypeError"), "{refused}");
}

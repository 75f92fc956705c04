//! Another implementation of HTTP/2, and its load generator: two hundred streams at once without an error of the protocol.

use std::process::Command;

use prost::Message;
use reg4rec::wire::v1;

use crate::bundle;
use crate::process::Process;

/// The number before or after a word of a line such as `requests: 100 total, 100 started, 0 failed`.
fn counted(report: &str, line: &str, word: &str) -> u64 {
    let line = report.lines().find(|text| text.starts_with(line)).unwrap_or_else(|| panic!("no {line} in {report}"));
    let told = line.split([',', ':']).find_map(|part| part.trim().strip_suffix(word)).map(str::trim);
    told.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no {word:?} in {line:?}"))
}

#[test]
fn two_hundred_streams_of_h2load_end_without_an_error_of_the_protocol() {
    if Command::new("h2load").arg("--version").output().is_err() {
        return eprintln!("skipped: there is no h2load on the path (Debian: nghttp2-client)");
    }
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("tiny");
    bundle::write(&dir, 0.0);
    let process = Process::start(&dir);
    let event = |id: &str| v1::Event { item_id: id.into(), ..Default::default() };
    let request = v1::RecommendRequest { history: vec![event("item-3"), event("item-7")], ..Default::default() };
    let message = request.encode_to_vec();
    let body = home.path().join("request");
    std::fs::write(&body, [&[0][..], &(message.len() as u32).to_be_bytes(), &message].concat()).unwrap();
    let url = format!("{}/reg4rec.v1.RecommendationService/Recommend", process.public);
    // Two connections of a hundred streams each, then one of two hundred.
    for (clients, streams) in [("2", "100"), ("1", "200")] {
        let mut command = Command::new("h2load");
        command.args(["-n", "4000", "-c", clients, "-m", streams, "-t", "1", "--data"]).arg(&body);
        command.args(["-H", "content-type: application/grpc", "-H", "te: trailers", "-H", "grpc-timeout: 60S", &url]);
        let output = command.output().unwrap();
        let report = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{report}\n{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(counted(&report, "requests:", "succeeded"), 4000, "{report}");
        for wrong in ["failed", "errored", "timeout"] {
            assert_eq!(counted(&report, "requests:", wrong), 0, "{report}");
        }
        assert_eq!(counted(&report, "status codes:", "2xx"), 4000, "{report}");
    }
    // HTTP says 200 whatever came of a call: that each was answered stands in gRPC's own count.
    let admin = process.admin().to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (_, page) = runtime.block_on(crate::fake::page_at(&admin, "/metrics"));
    let answered = "reg4rec_requests_total{code=\"OK\",method=\"Recommend\",variant=\"default\"} 8000";
    assert!(page.contains(answered), "{answered} is not in {page}");
}

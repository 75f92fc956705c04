//! Several times what a server can do.

use std::path::Path;

use crate::bundle::DEMO;
use crate::load::{counted, load};
use crate::process::{Process, json};

#[test]
fn at_five_times_its_capacity_it_answers_or_refuses_everybody_and_serves_on() {
    // A real model and wide searches: what is overloaded is to be the server, not the client beside it.
    let dir = Path::new(DEMO);
    let process = Process::start(dir);
    let load = |more: &[&str]| json(&load(&process, dir, &[&["--warmup", "0", "--beam", "128"], more].concat()));
    let capacity = load(&["--concurrency", "16", "--duration", "1"])["answered_per_second"].as_f64().unwrap();
    assert!(capacity > 1.0, "{capacity}");
    let rate = format!("{:.0}", 5.0 * capacity);
    // Calls, calls of several and streams.
    let clients = ["--clients", "call=3,batch:8=1,stream=1"];
    let told = load(&[&["--rate", &rate, "--duration", "3", "--deadline", "200"], &clients[..]].concat());
    let answers = told["answers"].as_object().unwrap();
    assert_eq!(counted(&told), told["requests"].as_u64().unwrap(), "{told}");
    assert!(answers.get("OK").is_some_and(|count| count.as_u64() > Some(0)), "{told}");
    for code in answers.keys() {
        assert!(["OK", "ResourceExhausted", "DeadlineExceeded"].contains(&code.as_str()), "{code}: {told}");
    }
    for manner in ["call", "batch:8", "stream"] {
        assert!(told["clients"][manner]["requests"].as_u64() > Some(0), "{manner}: {told}");
    }
    let after = load(&["--concurrency", "4", "--duration", "1", "--deadline", "20000"]);
    assert_eq!(after["answers"]["OK"], after["requests"], "{after}");
}

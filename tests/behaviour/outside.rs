//! Servers of others, started on a free loopback port; a test skips, and says so, where their program is missing.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A server that may be killed, stopped, and started again at the same port, with the files that it left.
pub struct Outside {
    program: &'static str,
    arguments: Vec<String>,
    pub port: u16,
    pub home: PathBuf,
    child: Option<Child>,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Outside {
    /// Redis with its files in `home`; what it acknowledged survives its end. None: there is no such program.
    pub fn redis(home: &Path, more: &[&str]) -> Option<Self> {
        let port = free_port().to_string();
        let dir = home.to_str().unwrap();
        let mut arguments = vec!["--port", &port, "--bind", "127.0.0.1", "--dir", dir, "--save", ""];
        arguments.extend(["--appendonly", "yes", "--appendfsync", "always"]);
        arguments.extend(more);
        Self::start("redis-server", &arguments, port.parse().unwrap(), home)
    }

    /// Redis that speaks TLS alone, and asks for a certificate: `ca.pem`, `server.pem` and `server.key` of its home.
    pub fn redis_over_tls(home: &Path) -> Option<Self> {
        let nothing = ["--port", "0", "--tls-port", "1", "--tls-cert-file", "/nowhere"];
        let said = Command::new("redis-server").args(nothing).stdin(Stdio::null()).output();
        if said.is_ok_and(|said| String::from_utf8_lossy(&said.stdout).contains("Bad directive")) {
            eprintln!("skipped: this redis-server was built without TLS");
            return None;
        }
        let port = free_port().to_string();
        let file = |name: &str| home.join(name).to_str().unwrap().to_owned();
        let (certificate, key, ca) = (file("server.pem"), file("server.key"), file("ca.pem"));
        let mut arguments = vec!["--port", "0", "--tls-port", &port, "--bind", "127.0.0.1", "--save", ""];
        arguments.extend(["--dir", home.to_str().unwrap(), "--tls-auth-clients", "yes"]);
        arguments.extend(["--tls-cert-file", &certificate, "--tls-key-file", &key, "--tls-ca-cert-file", &ca]);
        Self::start("redis-server", &arguments, port.parse().unwrap(), home)
    }

    /// NATS with JetStream and its files in `home`.
    pub fn nats(home: &Path) -> Option<Self> {
        let port = free_port().to_string();
        let arguments = ["--addr", "127.0.0.1", "--port", &port, "--jetstream", "--store_dir", home.to_str().unwrap()];
        Self::start("nats-server", &arguments, port.parse().unwrap(), home)
    }

    /// An S3 that forgets everything when it ends: moto's server, on the path or named by `REG4REC_MOTO`.
    #[cfg(feature = "object-store")]
    pub fn s3(home: &Path) -> Option<Self> {
        let named = std::env::var("REG4REC_MOTO").ok().map(|program| &*program.leak());
        let port = free_port().to_string();
        Self::start(named.unwrap_or("moto_server"), &["-H", "127.0.0.1", "-p", &port], port.parse().unwrap(), home)
    }

    /// The files below `home` by plain HTTP.
    #[cfg(feature = "object-store")]
    pub fn web(home: &Path) -> Option<Self> {
        let (port, dir) = (free_port().to_string(), home.to_str().unwrap());
        let arguments = ["-m", "http.server", &port, "--bind", "127.0.0.1", "--directory", dir];
        Self::start("python3", &arguments, port.parse().unwrap(), home)
    }

    fn start(program: &'static str, arguments: &[&str], port: u16, home: &Path) -> Option<Self> {
        if Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
            eprintln!("skipped: there is no {program} on the path");
            return None;
        }
        std::fs::create_dir_all(home).unwrap();
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let mut outside = Self { program, arguments, port, home: home.to_owned(), child: None };
        outside.begin();
        Some(outside)
    }

    /// Starts it, and waits until it listens.
    pub fn begin(&mut self) {
        let mut command = Command::new(self.program);
        command.args(&self.arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn().unwrap());
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(began.elapsed() < Duration::from_secs(60), "{} does not listen", self.program);
            std::thread::yield_now();
        }
    }

    /// Ends it without a warning.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Lets it hang, and go on.
    pub fn hang(&self, hangs: bool) {
        let signal = if hangs { "-STOP" } else { "-CONT" };
        let pid = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether some file below `directory` holds the text.
pub fn found_below(directory: &Path, text: &str) -> bool {
    std::fs::read_dir(directory).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return found_below(&path, text);
        }
        std::fs::read(path).unwrap().windows(text.len()).any(|part| part == text.as_bytes())
    })
}

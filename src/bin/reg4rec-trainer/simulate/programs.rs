//! The programs that the simulation runs, as a person would start them.

use std::fs::File;
use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use anyhow::{Context, ensure};

/// Where the programs of this package are.
#[derive(Debug)]
pub struct Programs {
    directory: PathBuf,
}

/// A program that runs until it is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// Kept open while it runs.
    said: Lines<BufReader<ChildStdout>>,
}

impl Programs {
    /// Those beside the program that runs now.
    pub fn beside() -> anyhow::Result<Self> {
        let own = std::env::current_exe().context("where this program is")?;
        let directory = own.parent().context("where this program is")?.to_owned();
        for name in ["reg4rec-server", "reg4rec"] {
            let path = directory.join(name);
            ensure!(path.is_file(), "{}: not there; build all programs first (cargo build --release)", path.display());
        }
        Ok(Self { directory })
    }

    /// Runs one to its end and answers what it printed.
    pub fn run(&self, name: &str, arguments: &[&str]) -> anyhow::Result<Output> {
        let mut command = Command::new(self.directory.join(name));
        command.args(arguments).env("RUST_LOG", "warn").output().with_context(|| format!("starting {name}"))
    }

    /// Starts one whose log goes to `log`.
    pub fn start(&self, name: &str, arguments: &[&str], log: &Path) -> anyhow::Result<Running> {
        let log = File::create(log).with_context(|| format!("{}", log.display()))?;
        let mut command = Command::new(self.directory.join(name));
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().with_context(|| format!("starting {name}"))?;
        let said = child.stdout.take().context("its output")?;
        Ok(Running { child, said: BufReader::new(said).lines() })
    }
}

impl Running {
    /// Waits for a line that begins with `name`, and answers its last word.
    pub fn said(&mut self, name: &str) -> anyhow::Result<String> {
        for line in self.said.by_ref() {
            let line = line?;
            if line.starts_with(name) {
                return Ok(line.split_whitespace().last().unwrap_or_default().to_owned());
            }
        }
        anyhow::bail!("it ended before it said {name:?}; its log says why")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}

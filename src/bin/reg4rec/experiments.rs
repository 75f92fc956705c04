//! `reg4rec experiment get` and `set`: the experiments of a running server, through its admin port.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};

use reg4rec::wire::client::AdminServiceClient;
use reg4rec::wire::v1;

use super::{channel, page};

#[derive(Debug, Args)]
pub struct Operator {
    /// The server's admin port
    #[arg(long, value_name = "ADDR", default_value = channel::ADMIN)]
    admin: String,
    #[command(flatten)]
    access: channel::Access,
    /// Print one JSON object and nothing else
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub struct Get {
    #[command(flatten)]
    operator: Operator,
    /// How many versions before the present one to tell too
    #[arg(long, value_name = "N", default_value_t = 0)]
    previous: u32,
}

#[derive(Debug, Args)]
pub struct Set {
    #[command(flatten)]
    operator: Operator,
    /// The experiments: a TOML file with a table [[experiment]] each, as `experiment get` prints them; - reads standard
    /// input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The version that they replace: when another one runs by then, nothing is changed [default: whichever runs]
    #[arg(long, value_name = "VERSION")]
    replaces: Option<u64>,
    /// Why, for people
    #[arg(long, default_value = "")]
    note: String,
    /// Only say whether they would be taken
    #[arg(long)]
    check: bool,
}

impl Get {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let Operator { admin, access, json } = &self.operator;
        let asked = v1::GetExperimentsRequest { previous: self.previous };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let outcome = runtime.block_on(async {
            let mut server = AdminServiceClient::new(channel::to_operator(admin, access).await?);
            anyhow::Ok(server.get_experiments(asked).await)
        })?;
        let told = match outcome {
            Ok(told) => told.into_inner(),
            Err(status) => return Ok(page::refused(&status, *json)),
        };
        let current = told.current.unwrap_or_default();
        if *json {
            let previous: Vec<Value> = told.previous.iter().map(version).collect();
            println!("{}", json!({ "current": version(&current), "previous": previous }));
        } else {
            // A file that `set` takes: what is no setting is a comment.
            print!("{}{}", heading(&current), current.settings);
            for before in &told.previous {
                let quoted: String = before.settings.lines().map(|line| format!("# {line}\n")).collect();
                print!("\n{}{quoted}", heading(before));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Set {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let Operator { admin, access, json } = &self.operator;
        let settings = text(&self.file)?;
        let (replaces, check_only) = (self.replaces, self.check);
        let asked = v1::SetExperimentsRequest { settings, replaces, note: self.note.clone(), check_only };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let outcome = runtime.block_on(async {
            let mut server = AdminServiceClient::new(channel::to_operator(admin, access).await?);
            anyhow::Ok(server.set_experiments(asked).await)
        })?;
        match outcome {
            Ok(told) => {
                let current = told.into_inner().current.unwrap_or_default();
                match (*json, check_only) {
                    (true, _) => println!("{}", json!({ "current": version(&current), "set": !check_only })),
                    (false, true) => println!("would be taken; version {} runs", current.version),
                    (false, false) => println!("version {} runs", current.version),
                }
                Ok(ExitCode::SUCCESS)
            }
            Err(status) => Ok(page::refused(&status, *json)),
        }
    }
}

fn text(file: &Path) -> anyhow::Result<String> {
    if file != Path::new("-") {
        return std::fs::read_to_string(file).with_context(|| file.display().to_string());
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).context("standard input")?;
    Ok(text)
}

fn heading(one: &v1::ExperimentsVersion) -> String {
    let by = if one.client.is_empty() { String::new() } else { format!(", by {}", one.client) };
    let note = one.note.replace('\n', " ");
    format!("# version {}{by}{}{note}\n", one.version, if note.is_empty() { "" } else { ": " })
}

fn version(one: &v1::ExperimentsVersion) -> Value {
    let time = one.time.map(|time| time.seconds);
    json!({
        "version": one.version, "settings": one.settings, "note": one.note, "client": one.client, "time": time,
    })
}

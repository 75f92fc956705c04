//! `reg4rec key new`: a key for a caller, and its hash for the server's settings.

use std::process::ExitCode;

use anyhow::{anyhow, ensure};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use serde_json::json;

use reg4rec::server::{NewKey, Role};

#[derive(Debug, Subcommand)]
pub enum Key {
    /// Makes a key. It is printed once and kept nowhere; the server's settings get its salted hash
    New(New),
}

#[derive(Debug, Args)]
pub struct New {
    /// Who will use it: 1 to 64 of A-Z a-z 0-9 - _; also a label of metrics
    #[arg(long)]
    name: String,
    /// What it is for; may be said several times
    #[arg(long, required = true, value_parser = roles())]
    role: Vec<Role>,
    /// Requests a second that it may ask in the long run [default: any number]
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<f64>,
    /// Requests that it may ask at once [default: those of a second]
    #[arg(long, value_name = "REQUESTS", requires = "rate")]
    burst: Option<u32>,
    /// Print one JSON object and nothing else
    #[arg(long)]
    json: bool,
}

impl Key {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let Key::New(new) = self;
        ensure!(new.rate.is_none_or(|rate| (0.001..=1e9).contains(&rate)), "--rate: expected 0.001 to 1e9");
        let key = NewKey::make(&new.name).map_err(|reason| anyhow!(reason))?;
        let roles: Vec<&str> = new.role.iter().map(|role| role.name()).collect();
        if new.json {
            let told = json!({
                "name": new.name, "key": key.reveal(), "hash": key.hash.text(), "roles": roles,
                "requests_per_second": new.rate, "burst": new.burst,
            });
            println!("{told}");
            return Ok(ExitCode::SUCCESS);
        }
        println!("# For the caller, as `authorization: Bearer KEY`; it is not shown again:\n{}\n", key.reveal());
        println!("# For the server's settings:\n[[server.key]]");
        println!("name = {:?}\nhash = {:?}\nroles = {roles:?}", new.name, key.hash.text());
        if let Some(rate) = new.rate {
            println!("requests_per_second = {rate:?}");
        }
        if let Some(burst) = new.burst {
            println!("burst = {burst}");
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What a key may be for, by name.
fn roles() -> impl TypedValueParser<Value = Role> {
    let names = PossibleValuesParser::new(Role::ALL.map(Role::name));
    names.try_map(|name| Role::ALL.into_iter().find(|role| role.name() == name).ok_or("no role is called so"))
}

//! The experiments of a server as operators set them.

use std::time::SystemTime;

/// One version of a server's experiments.
#[derive(Debug, Clone, PartialEq)]
pub struct ExperimentsEdition {
    /// 0: as the server's settings say; then counted from 1 on.
    pub version: u64,
    /// The experiments, as TOML: `[[experiment]]` tables.
    pub settings: String,
    /// Why, for people.
    pub note: String,
    /// The name of the key that set it. Empty: no key was asked for.
    pub client: String,
    /// When it was set; of version 0, when the server started.
    pub time: SystemTime,
}

/// What an operator wants the experiments to be.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ExperimentsChange {
    /// The version that is to be replaced. None: whichever runs.
    pub replaces: Option<u64>,
    /// The experiments, as TOML: `[[experiment]]` tables.
    pub settings: String,
    /// Why, for people.
    pub note: String,
    /// The name of the key that sets it.
    pub client: String,
    /// Only say whether it could be done.
    pub check_only: bool,
}

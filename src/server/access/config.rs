//! Settings of the keys.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::key::{KeyHash, is_name};
use super::role::Role;

/// One table `[[server.key]]` of the settings; `src/config/defaults.toml` says what each field is for.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyConfig {
    /// Who uses it; also a label of metrics.
    pub name: String,
    /// The key's salted hash, as `reg4rec key new` prints it.
    pub hash: KeyHash,
    /// What it is for; at least one.
    pub roles: Vec<Role>,
    /// Requests a second that it may ask in the long run. Unset: any number.
    #[serde(default)]
    pub requests_per_second: Option<f64>,
    /// Requests that it may ask at once; by default those of a second.
    #[serde(default)]
    pub burst: Option<u32>,
}

impl KeyConfig {
    /// The quota: tokens a second and most tokens; none: no limit.
    pub(super) fn quota(&self) -> Option<(f64, u32)> {
        let rate = self.requests_per_second?;
        // A float that is too large for it becomes the largest; it was checked before.
        Some((rate, self.burst.unwrap_or(rate.ceil() as u32)))
    }

    /// Says of each value of these keys that is wrong: key, value, what was expected. Hashes are not told.
    pub(in crate::server) fn problems(keys: &[Self]) -> Vec<String> {
        let (mut problems, mut names) = (Vec::new(), BTreeSet::new());
        for (at, key) in keys.iter().enumerate() {
            let mut wrong = |field: &str, what: String| problems.push(format!("server.key[{at}].{field} {what}"));
            if !is_name(&key.name) {
                wrong("name", format!("is {:?}, expected 1 to 64 of A-Z a-z 0-9 - _", key.name));
            } else if !names.insert(&key.name) {
                wrong("name", format!("is {:?} again, expected each name once", key.name));
            }
            if key.hash.lock().is_none() {
                wrong("hash", "is no hash, expected sha256:SALT:HASH as `reg4rec key new` prints it".into());
            }
            if key.roles.is_empty() {
                wrong("roles", format!("is empty, expected some of {}", Role::ALL.map(Role::name).join(", ")));
            }
            if let Some(rate) = key.requests_per_second
                && !(0.001..=1e9).contains(&rate)
            {
                wrong("requests_per_second", format!("is {rate}, expected 0.001 to 1e9"));
            }
            match (key.burst, key.requests_per_second) {
                (Some(0), _) => wrong("burst", "is 0, expected at least 1".into()),
                (Some(burst), None) => wrong("burst", format!("is {burst}, expected requests_per_second beside it")),
                _ => {}
            }
        }
        problems
    }
}

//! What outlives a kill: where the sidecar stands between cycles, and what an unfinished cycle is about.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

const STATE: &str = "state.json";
const CYCLE: &str = "cycle";
const PLAN: &str = "plan.json";

/// Where the sidecar stands between cycles.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The place in the event log up to which an ended cycle has looked: later events are new.
    pub looked_through: u64,
    /// The name of that log; none where it had none.
    #[serde(default)]
    pub log: Option<String>,
    /// When the last cycle ended, in Unix seconds; 0: never.
    pub ended_at: i64,
    /// The version that was published last; none before the first.
    pub published: Option<String>,
}

/// What a cycle is about: written before its work, so that whoever goes on after a kill does the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Digest of the bundle that it goes on from.
    pub parent: String,
    /// The version that it publishes as.
    pub version: String,
    /// The log's name; none where it has none.
    #[serde(default)]
    pub log: Option<String>,
    /// The place in the log up to which the parent has learnt.
    pub learnt_through: u64,
    /// The place up to which the candidate learns; what follows is held out.
    pub cut: u64,
    /// The last place that is looked at.
    pub end: u64,
    /// The settings, as JSON text.
    pub settings: String,
    /// Of the events themselves. It changes when a user is forgotten.
    pub events: String,
}

/// Whether what was noted of one log says nothing of another: both have names, and other ones.
pub(super) fn is_another(noted: Option<&str>, log: Option<&str>) -> bool {
    noted.is_some() && log.is_some() && noted != log
}

impl State {
    /// Up to where an ended cycle has looked into the log of this name.
    pub fn looked_through(&self, log: Option<&str>) -> u64 {
        if is_another(self.log.as_deref(), log) { 0 } else { self.looked_through }
    }
}

/// The sidecar's own directory.
#[derive(Debug, Clone)]
pub struct WorkPlace {
    root: PathBuf,
}

impl WorkPlace {
    /// The directory at `root`, which is made.
    pub fn open(root: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(root).with_context(|| format!("work is {}", root.display()))?;
        Ok(Self { root: root.to_owned() })
    }

    /// The state; the initial one when there is none.
    pub fn state(&self) -> anyhow::Result<State> {
        Ok(read(&self.root.join(STATE))?.unwrap_or_default())
    }

    /// Replaces the state, whole or not at all.
    pub fn set_state(&self, state: &State) -> anyhow::Result<()> {
        write(&self.root.join(STATE), state)
    }

    /// The plan of a cycle that did not end; none when there is no such cycle.
    pub fn plan(&self) -> anyhow::Result<Option<Plan>> {
        read(&self.cycle().join(PLAN))
    }

    /// Where the unfinished cycle keeps its work.
    pub fn cycle(&self) -> PathBuf {
        self.root.join(CYCLE)
    }

    /// Begins a cycle in an empty directory.
    pub fn begin(&self, plan: &Plan) -> anyhow::Result<()> {
        self.clear()?;
        let directory = self.cycle();
        fs::create_dir_all(&directory).with_context(|| format!("{}", directory.display()))?;
        write(&directory.join(PLAN), plan)
    }

    /// Ends the cycle: `state` says what came of it before its work goes.
    pub fn end(&self, state: &State) -> anyhow::Result<()> {
        self.set_state(state)?;
        self.clear()
    }

    /// The plan goes first: a directory without one is no cycle.
    fn clear(&self) -> anyhow::Result<()> {
        let directory = self.cycle();
        for removed in [fs::remove_file(directory.join(PLAN)), fs::remove_dir_all(&directory)] {
            match removed {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("removing {}", directory.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> anyhow::Result<Option<T>> {
    match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("{}", path.display())),
        Ok(text) => serde_json::from_slice(&text).map(Some).with_context(|| format!("{}", path.display())),
    }
}

/// Written beside, synced, then renamed: a reader sees the one before or this one.
fn write(path: &Path, content: &impl Serialize) -> anyhow::Result<()> {
    let draft = path.with_extension("tmp");
    let text = serde_json::to_vec_pretty(content)?;
    let written = || -> io::Result<()> {
        let mut file = File::create(&draft)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&draft, path)?;
        path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
    };
    written().with_context(|| format!("{}", path.display()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_a_cycle_without_a_plan_is_none() {
        let home = tempfile::tempdir().unwrap();
        let place = WorkPlace::open(&home.path().join("work")).unwrap();
        assert_eq!((place.state().unwrap(), place.plan().unwrap()), (State::default(), None));
        let plan = Plan {
            parent: "d1".into(),
            version: "7".into(),
            log: Some("l".into()),
            learnt_through: 3,
            cut: 8,
            end: 9,
            settings: "{}".into(),
            events: "e".into(),
        };
        place.begin(&plan).unwrap();
        fs::write(place.cycle().join("weights"), "half").unwrap();
        assert_eq!(WorkPlace::open(&home.path().join("work")).unwrap().plan().unwrap(), Some(plan.clone()));
        place.begin(&Plan { cut: 7, ..plan }).unwrap();
        assert!(!place.cycle().join("weights").exists(), "the work of another cycle is left");

        let state = State { looked_through: 9, log: None, ended_at: 5, published: Some("7".into()) };
        place.end(&state).unwrap();
        assert_eq!((place.state().unwrap(), place.plan().unwrap()), (state, None));
        assert!(!place.cycle().exists());
        let of_a_log = State { log: Some("a".into()), ..place.state().unwrap() };
        assert_eq!([Some("a"), None, Some("b")].map(|log| of_a_log.looked_through(log)), [9, 9, 0]);
        // As it was written before logs were told apart.
        fs::write(home.path().join("work/state.json"), "{\"looked_through\": 4, \"ended_at\": 5, \"published\": null}")
            .unwrap();
        assert_eq!(place.state().unwrap().looked_through(Some("a")), 4);
        fs::write(home.path().join("work/state.json"), "{\"looked\": 1}").unwrap();
        assert!(format!("{:#}", place.state().unwrap_err()).contains("state.json"));
    }
}

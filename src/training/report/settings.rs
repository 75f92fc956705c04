//! What an ablation was set to do otherwise than its base.

use std::collections::BTreeMap;

use serde_json::Value;

use super::tables::{Cell, Column, Table, label};
use crate::evaluation::{GroupRuns, Summary};

/// The settings in which a system's first run differs from the base's; none where nothing does.
pub(super) fn differing(summary: &Summary<'_>, group: &GroupRuns<'_>, base: &str) -> Option<Table> {
    let rows: Vec<Vec<Cell>> = group
        .systems
        .iter()
        .filter_map(|runs| {
            let base = leaves(&summary.counterpart(group, runs, base)?.runs.first()?.settings);
            let own = leaves(&runs.runs.first()?.settings);
            let changed = own.iter().filter(|&(path, value)| base.get(path) != Some(value));
            let mut told: Vec<String> = changed.map(|(path, value)| format!("{path} = {value}")).collect();
            told.extend(base.keys().filter(|&path| !own.contains_key(path)).map(|path| format!("no {path}")));
            let text = told.join(", ");
            (!text.is_empty()).then(|| vec![label(group, runs).into(), text.into()])
        })
        .collect();
    let columns = ["system", "settings"].map(|name| Column { name: name.to_owned(), words: true });
    (!rows.is_empty()).then(|| Table {
        title: format!("Settings other than those of {base}"),
        note: "Of the first seed.".to_owned(),
        columns: columns.into(),
        rows,
    })
}

/// Every value by its path, but for seeds, which tell runs of one system apart.
fn leaves(settings: &Value) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![(String::new(), settings)];
    while let Some((path, value)) = open.pop() {
        let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        match value {
            Value::Object(fields) => {
                open.extend(
                    fields.iter().filter(|(name, _)| *name != "seed").map(|(name, value)| (below(name), value)),
                );
            }
            Value::Null => {}
            leaf => drop(found.insert(path, leaf.to_string())),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn settings_become_values_by_path_without_seeds() {
        let found = leaves(&json!({"network": {"width": 64, "seed": 3}, "heads": [1, 2], "none": null}));
        let wanted = [("heads", "[1,2]"), ("network.width", "64")];
        assert_eq!(found, wanted.map(|(path, value)| (path.to_owned(), value.to_owned())).into());
    }
}

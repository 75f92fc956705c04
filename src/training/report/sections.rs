//! What stands in the report, in order: a section a data set and group, tables and figures in it.

use super::figures;
use super::settings;
use super::tables::{self, Table};
use crate::evaluation::{GroupRuns, HEADLINE, RunRecord, Summary, SystemRuns};

/// The systems that others are compared with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Names<'a> {
    /// Of tables.
    pub reference: &'a str,
    /// Of ablations.
    pub base: &'a str,
}

/// A part of the report under one heading.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Section {
    pub title: String,
    pub about: String,
    pub blocks: Vec<Block>,
}

/// What a section is made of.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Block {
    Table(Table),
    /// A table that few will look at: folded on the page.
    Folded(Table),
    Figure(Figure),
}

/// Charts that belong together, and their numbers.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Figure {
    pub title: String,
    pub caption: String,
    /// Names by colour slot; empty where there is one series only.
    pub legend: Vec<(usize, String)>,
    /// Whole `<svg>` elements.
    pub charts: Vec<String>,
    /// Whether a chart wants the page's whole width.
    pub wide: bool,
    pub table: Table,
}

/// A system in a chart: its place among the colours, its label, its runs.
#[derive(Debug, Clone)]
pub(super) struct Series<'a> {
    pub slot: usize,
    pub name: String,
    pub runs: &'a SystemRuns<'a>,
}

/// The whole report.
pub(super) fn sections(summary: &Summary<'_>, names: Names<'_>) -> Vec<Section> {
    let mut sections: Vec<Section> = summary.groups.iter().map(|group| section(summary, group, names)).collect();
    sections.push(Section {
        title: "Runs".to_owned(),
        about: "Every record of this report.".to_owned(),
        blocks: vec![Block::Table(tables::cost_table(summary))],
    });
    sections
}

fn section(summary: &Summary<'_>, group: &GroupRuns<'_>, names: Names<'_>) -> Section {
    let data = group.dataset;
    let group = &with_base(summary, group, names.base);
    let series = series(group, names);
    // A group without the reference is an ablation: its systems are told against the base.
    let referred = group.group == HEADLINE || group.systems.iter().any(|runs| runs.system == names.reference);
    let names = Names { reference: if referred { names.reference } else { names.base }, ..names };
    let filtered = tables::metrics(summary, group, names, "Test, seen items filtered", |scores| scores.filtered);
    let all = tables::metrics(summary, group, names, "Test, seen items allowed", |scores| scores.all);
    let mut blocks = vec![Block::Table(filtered), Block::Folded(all)];
    if group.group != HEADLINE {
        let changes = tables::differences(summary, group, names.base);
        blocks.extend(figures::changes(&changes, names.base).map(Block::Figure));
        blocks.extend(settings::differing(summary, group, names.base).map(Block::Folded));
    }
    let drawn = [
        figures::learning(&series),
        figures::popularity(&series),
        figures::history(&series),
        figures::tokens(&series),
        figures::calibration(&series),
    ];
    blocks.extend(drawn.into_iter().flatten().map(Block::Figure));
    Section {
        title: format!("{}: {}", data.name, group.group),
        about: format!(
            "{} users, {} items. Leave-one-out, all items ranked.",
            tables::count(data.users),
            tables::count(data.items)
        ),
        blocks,
    }
}

/// The group with the system that it is compared with, where that is another group's.
fn with_base<'a>(summary: &Summary<'a>, group: &GroupRuns<'a>, base: &str) -> GroupRuns<'a> {
    let mut group = group.clone();
    if group.group != HEADLINE
        && group.systems.iter().all(|runs| runs.system != base)
        && let Some(first) = group.systems.first()
        && let Some(found) = summary.counterpart(&group, first, base)
    {
        group.systems.insert(0, found.clone());
    }
    group
}

/// The group's systems with their colours: the base and the reference first, so that they look alike everywhere.
fn series<'a>(group: &'a GroupRuns<'a>, names: Names<'_>) -> Vec<Series<'a>> {
    let mut systems: Vec<&SystemRuns<'_>> = group.systems.iter().collect();
    systems.sort_by_key(|runs| (runs.system != names.base, runs.system != names.reference));
    let place = |(slot, runs): (usize, &'a SystemRuns<'a>)| Series { slot, name: tables::label(group, runs), runs };
    systems.into_iter().enumerate().map(place).collect()
}

impl<'a> Series<'a> {
    /// The runs that have what `wanted` asks for, with the system's label.
    pub fn with(&self, wanted: impl Fn(&RunRecord) -> bool) -> Vec<(String, &'a RunRecord)> {
        self.runs.runs.iter().filter(|run| wanted(run)).map(|run| (self.name.clone(), *run)).collect()
    }
}

//! Answers and refusals, as a page for people or as one JSON object.

use std::fmt::Write;
use std::process::ExitCode;

use serde_json::{Value, json};
use tonic::Status;
use tonic_types::StatusExt;

use reg4rec::wire::v1;

/// Longest title on a page, in characters.
const TITLE: usize = 56;

/// The answer as a table; below each item its path, where there is one.
pub fn answer(answer: &v1::RecommendResponse) -> String {
    let mut page = String::new();
    let width = answer.items.iter().map(|item| item.item_id.chars().count()).max().unwrap_or(0).max(4);
    let title = answer.items.iter().map(|item| shortened(&item.title).chars().count()).max().unwrap_or(0).max(5);
    // Writing to a string cannot fail.
    let _ = writeln!(page, "rank  {:width$}  {:>8}  {:>8}  {:title$}  category", "item", "score", "p", "title");
    for (rank, item) in answer.items.iter().enumerate() {
        let shown = shortened(&item.title);
        let category = item.categories.last().map_or("", String::as_str);
        let p = percent(item.score.exp());
        let _ = writeln!(
            page,
            "{:>4}  {:width$}  {:>8.3}  {p:>8}  {shown:title$}  {category}",
            rank + 1,
            item.item_id,
            item.score
        );
        if let Some(path) = &item.path {
            let _ = writeln!(page, "      {}", path_line(path));
            let _ = writeln!(page, "      {}", path.reason);
        }
    }
    let flags = [(answer.cold_start, "cold start"), (answer.degraded, "degraded"), (answer.short, "short")];
    let flags: String = flags.iter().filter(|(set, _)| *set).map(|(_, name)| format!(", {name}")).collect();
    let total = answer.timings.as_ref().map_or(0.0, |timings| timings.total * 1e3);
    let _ = writeln!(
        page,
        "{} items in {total:.1} ms, variant {}, bundle {}, index {}{flags}",
        answer.items.len(),
        answer.variant,
        answer.bundle_version,
        answer.index_version
    );
    for given in answer.assignment.iter().chain(&answer.further_assignments) {
        let arm = if given.arm.is_empty() { "no arm" } else { &given.arm };
        let _ = writeln!(page, "experiment {}: {arm} ({})", given.experiment, reason(given));
    }
    page
}

/// `fallback_error`
fn reason(assignment: &v1::Assignment) -> String {
    assignment.reason().as_str_name().trim_start_matches("ASSIGNMENT_REASON_").to_lowercase()
}

/// `3:200 50% Hair Care 90% > 0:17 80% Shampoo 95% > item 25%`
fn path_line(path: &v1::Path) -> String {
    let step = |step: &v1::Step| {
        let belief = step.beliefs.first();
        let belief = belief.map(|belief| format!(" [{} {}]", belief.category, percent(belief.probability)));
        let jump = if step.inconsistent { " (jump)" } else { "" };
        format!("{}:{} {}{}{jump}", step.codebook, step.token, percent(step.probability), belief.unwrap_or_default())
    };
    let mut parts: Vec<String> = path.steps.iter().map(step).collect();
    parts.push(format!("item {}", percent(path.finish)));
    parts.join(" > ")
}

fn percent(p: f32) -> String {
    if p < 0.001 { format!("{:.4}%", p * 100.0) } else { format!("{:.1}%", p * 100.0) }
}

fn shortened(title: &str) -> String {
    if title.chars().count() <= TITLE {
        return title.to_owned();
    }
    title.chars().take(TITLE - 1).chain(['…']).collect()
}

/// The refusal, a line for every wrong field.
pub fn status(status: &Status) -> String {
    let mut page = format!("{:?}: {}\n", status.code(), status.message());
    for wrong in status.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default() {
        let _ = writeln!(page, "  {}: {}", wrong.field, wrong.description);
    }
    page
}

/// Tells the refusal, as one JSON object on standard output or as a page beside it, and fails.
pub fn refused(status: &Status, json: bool) -> ExitCode {
    if json {
        println!("{}", status_json(status));
    } else {
        eprint!("{}", self::status(status));
    }
    ExitCode::FAILURE
}

/// `{"error": {"code", "message", "violations"}}`
pub fn status_json(status: &Status) -> Value {
    let violations = status.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default();
    let violations: Vec<Value> =
        violations.into_iter().map(|wrong| json!({"field": wrong.field, "description": wrong.description})).collect();
    json!({"error": {"code": format!("{:?}", status.code()), "message": status.message(), "violations": violations}})
}

/// The answer, with the names of the proto file.
pub fn answer_json(answer: &v1::RecommendResponse) -> Value {
    let timings = answer.timings.unwrap_or_default();
    json!({
        "request_id": answer.request_id,
        "items": answer.items.iter().map(item_json).collect::<Vec<_>>(),
        "variant": answer.variant,
        "bundle_version": answer.bundle_version,
        "index_version": answer.index_version,
        "assignment": answer.assignment.as_ref().map(assignment_json),
        "further_assignments": answer.further_assignments.iter().map(assignment_json).collect::<Vec<_>>(),
        "cold_start": answer.cold_start,
        "degraded": answer.degraded,
        "short": answer.short,
        "timings": {
            "history": timings.history,
            "queue": timings.queue,
            "encode": timings.encode,
            "search": timings.search,
            "resolve": timings.resolve,
            "total": timings.total,
        },
    })
}

fn assignment_json(assignment: &v1::Assignment) -> Value {
    json!({
        "experiment": assignment.experiment,
        "arm": assignment.arm,
        "variant": assignment.variant,
        "version": assignment.version,
        "reason": reason(assignment),
    })
}

fn item_json(item: &v1::Recommendation) -> Value {
    let mut shown = json!({
        "item_id": item.item_id,
        "score": item.score,
        "title": item.title,
        "categories": item.categories,
    });
    if let Some(path) = &item.path {
        shown["path"] = json!({
            "steps": path.steps.iter().map(step_json).collect::<Vec<_>>(),
            "finish": path.finish,
            "attended": path.attended.iter().map(attended_json).collect::<Vec<_>>(),
            "reason": path.reason,
        });
    }
    shown
}

fn attended_json(event: &v1::AttendedEvent) -> Value {
    let kind = event.kind().as_str_name().trim_start_matches("EVENT_KIND_").to_lowercase();
    json!({"item_id": event.item_id, "kind": kind, "weight": event.weight})
}

fn step_json(step: &v1::Step) -> Value {
    let belief = |belief: &v1::CategoryBelief| json!({"category": belief.category, "probability": belief.probability});
    json!({
        "codebook": step.codebook,
        "token": step.token,
        "probability": step.probability,
        "beliefs": step.beliefs.iter().map(belief).collect::<Vec<_>>(),
        "divergence": step.divergence,
        "pruned_siblings": step.pruned_siblings,
        "inconsistent": step.inconsistent,
    })
}

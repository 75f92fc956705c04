//! What the parts of a decode take, by the search's own word of what it turns to.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use reg4rec::decode::{Decoder, Engine, Part};

/// What each part took since the clock was set back.
struct Clock {
    part: Option<Part>,
    since: Instant,
    spent: [Duration; Part::ALL.len()],
}

thread_local! {
    static CLOCK: RefCell<Clock> =
        RefCell::new(Clock { part: None, since: Instant::now(), spent: Default::default() });
}

/// A decoder that this thread's clock follows. Parts that run on other threads are not told apart.
pub fn decoder() -> Decoder {
    Decoder::watched(|part| turn(Some(part)))
}

/// Sets the clock back.
pub fn begin() {
    CLOCK.with_borrow_mut(|clock| clock.spent = Default::default());
}

/// Stops the clock; answers what every part took.
pub fn end() -> Vec<Duration> {
    turn(None);
    CLOCK.with_borrow(|clock| clock.spent.to_vec())
}

fn turn(part: Option<Part>) {
    CLOCK.with_borrow_mut(|clock| {
        let now = Instant::now();
        if let Some(part) = clock.part {
            clock.spent[part as usize] += now - clock.since;
        }
        (clock.part, clock.since) = (part, now);
    });
}

/// Median microseconds a request of each column of `runs`, all as long.
pub fn medians(runs: &[Vec<Duration>], requests: usize) -> Vec<f64> {
    let columns = runs.first().map_or(0, Vec::len);
    let median = |column: usize| {
        let mut took: Vec<f64> = runs.iter().map(|run| run[column].as_secs_f64() * 1e6 / requests as f64).collect();
        took.sort_by(f64::total_cmp);
        took[took.len() / 2]
    };
    (0..columns).map(median).collect()
}

/// Prints a table of what [`medians`] found, for cases by name, engine and batch; `more` names columns behind the parts.
pub fn tell(cases: &[(String, Engine, usize, Vec<f64>)], more: &[&str]) {
    let parts = Part::ALL.iter().map(|part| format!("{part:?}").to_lowercase());
    let names: Vec<String> = parts.chain(more.iter().map(|name| (*name).to_owned())).collect();
    println!("\nMicroseconds a request, medians:\n\n| network | engine | batch | {} |", names.join(" | "));
    println!("|---|---|---|{}", "---|".repeat(names.len()));
    for (name, engine, batch, took) in cases {
        let took: Vec<String> = took.iter().map(|took| format!("{took:.1}")).collect();
        println!("| {name} | {engine:?} | {batch} | {} |", took.join(" | "));
    }
}

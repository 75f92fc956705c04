//! What a path tells of the history.

use super::fake::{Fake, everything, random_catalogue};
use crate::decode::{DecodeJob, DecodeSettings, Engine, Outcome, decode};
use crate::domain::{CodeShape, EventKind, History, HistoryEntry};

const SHAPE: CodeShape = CodeShape { codebooks: 4, entries: 8 };

fn answer(settings: &DecodeSettings, history: &History, explain: bool) -> Outcome {
    let index = random_catalogue(3, 300, SHAPE);
    let mut model = Fake::random(3, &index, 1.0);
    let root = everything(&index);
    let job = DecodeJob { history, k: 10, root: &root, settings, explain, bias: None };
    decode(&mut model, &index, &[job], &|_| true).unwrap().remove(0).unwrap()
}

fn history(events: u32) -> History {
    (0..events).map(|item| HistoryEntry { item, kind: EventKind::View, time: 0 }).collect()
}

#[test]
fn a_path_tells_the_events_that_were_looked_at_most_on_its_way() {
    // The fake looks at three events: after t tokens by .2, .1 t and .8 - .1 t.
    let settings = DecodeSettings { full_path: true, corp: false, ..DecodeSettings::default() };
    let found = answer(&settings, &history(5), true);
    assert_eq!(found.items.len(), 10);
    for item in &found.items {
        let path = item.path.as_ref().unwrap();
        assert_eq!(path.steps.len(), 4);
        // Five positions, the beginning among them; the history's first two events are past what is read.
        let expected = [(4, 0.6), (3, 0.2), (2, 0.2)];
        for (told, (event, weight)) in path.attended.iter().zip(expected) {
            assert!(told.event == event && (told.weight - weight).abs() < 1e-6, "{:?}", path.attended);
        }
        assert_eq!(path.attended.len(), 3);
    }
}

#[test]
fn telling_changes_no_answer_and_is_not_asked_of_the_exact_scorer() {
    for engine in [Engine::Beam, Engine::Draft, Engine::Exact] {
        let settings = DecodeSettings { engine, ..DecodeSettings::default() };
        let (told, plain) = (answer(&settings, &history(3), true), answer(&settings, &history(3), false));
        let items = |outcome: &Outcome| outcome.items.iter().map(|item| (item.item, item.score)).collect::<Vec<_>>();
        assert_eq!(items(&told), items(&plain));
        assert!(plain.items.iter().all(|item| item.path.is_none()));
        let attended = told.items.iter().all(|item| item.path.as_ref().is_some_and(|path| path.attended.len() == 3));
        assert_eq!(attended, engine != Engine::Exact);
    }
}

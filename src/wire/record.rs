//! Events as sent to events as checked, and what became of them.

use crate::domain::{Event, EventKind, Failure, Recorded, UserEvent};

use super::checks::{Checks, MAX_TEXT};
use super::decode::{kind, timestamp};
use super::{status_message, v1};

/// Most events of one request.
pub const MAX_EVENTS: usize = 1000;

/// Checks the events of one request. Those without a time happened at `now`, in Unix seconds.
///
/// # Errors
/// [`Failure::Invalid`] with a violation for every wrong field.
pub fn events(sent: v1::RecordRequest, now: i64) -> Result<Vec<UserEvent>, Failure> {
    let mut checks = Checks::default();
    if sent.events.is_empty() {
        checks.refuse("events", format!("is empty, expected 1 to {MAX_EVENTS} events"));
    }
    checks.count("events", sent.events.len(), MAX_EVENTS);
    let sent = sent.events.into_iter().take(MAX_EVENTS).enumerate();
    let events = sent.map(|(at, event)| one(&mut checks, at, event, now)).collect();
    checks.finish().map(|()| events).map_err(Failure::Invalid)
}

fn one(checks: &mut Checks, at: usize, sent: v1::UserEvent, now: i64) -> UserEvent {
    let user_id = checks.name(format_args!("events[{at}].user_id"), sent.user_id);
    let Some(event) = sent.event else {
        checks.refuse(format!("events[{at}].event"), "is unset, expected what was done");
        let event = Event { item_id: String::new(), kind: EventKind::View, time: now, value: None };
        return UserEvent { user_id, event, event_id: String::new(), request_id: String::new() };
    };
    let field = |name: &str| format!("events[{at}].event.{name}");
    let kind = kind(checks, field("kind"), event.kind);
    if kind == EventKind::Rating && event.value.is_none() {
        checks.refuse(field("value"), "is unset, expected the rating");
    }
    UserEvent {
        user_id,
        event_id: checks.text(field("event_id"), event.event_id, MAX_TEXT),
        request_id: checks.text(field("request_id"), event.request_id, MAX_TEXT),
        event: Event {
            item_id: checks.name(field("item_id"), event.item_id),
            kind,
            time: event.time.map_or(now, |time| {
                timestamp(checks, field("time"), time);
                time.seconds
            }),
            value: event.value.map(|value| checks.finite(field("value"), value)),
        },
    }
}

/// All events of a request are recorded.
pub fn response(recorded: Recorded) -> v1::RecordResponse {
    // At most `MAX_EVENTS` each.
    v1::RecordResponse { recorded: recorded.recorded as u32, duplicates: recorded.duplicates as u32 }
}

/// What became of one request of a stream.
pub fn result(outcome: Result<Recorded, Failure>) -> v1::RecordResult {
    use v1::record_result::Outcome;
    let outcome = match outcome {
        Ok(recorded) => Outcome::Response(response(recorded)),
        Err(failure) => Outcome::Status(status_message(&failure, "")),
    };
    v1::RecordResult { outcome: Some(outcome) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(item: &[u8]) -> v1::UserEvent {
        let event = v1::Event { item_id: item.to_vec(), kind: v1::EventKind::Click as i32, ..Default::default() };
        v1::UserEvent { user_id: b"u".to_vec(), event: Some(event) }
    }

    fn refused(events: Vec<v1::UserEvent>) -> Vec<String> {
        let Err(Failure::Invalid(wrong)) = super::events(v1::RecordRequest { events }, 7) else { panic!("accepted") };
        wrong.into_iter().map(|wrong| format!("{} {}", wrong.field, wrong.description)).collect()
    }

    #[test]
    fn an_event_without_a_time_happened_on_arrival() {
        let taken = events(v1::RecordRequest { events: vec![sent(b"i")] }, 7).unwrap();
        let event = Event { item_id: "i".into(), kind: EventKind::Click, time: 7, value: None };
        let expected = UserEvent { user_id: "u".into(), event, event_id: String::new(), request_id: String::new() };
        assert_eq!(taken, [expected]);
    }

    #[test]
    fn every_wrong_field_of_every_event_is_named() {
        let mut odd = sent(b"");
        odd.user_id.clear();
        odd.event.as_mut().unwrap().kind = 6;
        let mut odder = sent(b"i");
        let event = odder.event.as_mut().unwrap();
        (event.kind, event.value, event.event_id) = (9, Some(f32::NAN), vec![0xff]);
        let wrong = refused(vec![odd, sent(b"i"), odder, v1::UserEvent { user_id: b"u".to_vec(), event: None }]);
        assert_eq!(
            wrong,
            [
                "events[0].user_id is empty, expected 1 to 256 bytes of UTF-8",
                "events[0].event.value is unset, expected the rating",
                "events[0].event.item_id is empty, expected 1 to 256 bytes of UTF-8",
                "events[2].event.kind is 9, expected an EventKind (0 to 6)",
                "events[2].event.event_id byte 0xff at position 0 is not UTF-8",
                "events[2].event.value is NaN, expected a finite number",
                "events[3].event is unset, expected what was done",
            ]
        );
    }

    #[test]
    fn an_empty_request_and_too_many_events_are_refused() {
        assert_eq!(refused(Vec::new()), ["events is empty, expected 1 to 1000 events"]);
        assert_eq!(refused(vec![sent(b"i"); 1001]), ["events 1001 entries, expected at most 1000"]);
    }
}

//! The one table from failures to gRPC statuses.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::domain::{Failure, Lateness, Violation};

use super::v1;

/// `ErrorInfo.domain` of every status.
const DOMAIN: &str = "reg4rec";

/// Room for violations in a status, in bytes. A status travels in HTTP/2 headers, and some clients give up on more than
/// 8 KiB of them; base64 takes a third more.
const ROOM: usize = 3_000;

/// What a caller is told: a row of the table.
struct Row {
    code: Code,
    /// `ErrorInfo.reason`, for programs.
    reason: &'static str,
    message: String,
    violations: Vec<Violation>,
    retry_after: Option<Duration>,
    /// The key whose quota is used up.
    quota: Option<String>,
}

/// The table.
fn row(failure: &Failure, request_id: &str) -> Row {
    let row =
        |code, reason, message| Row { code, reason, message, violations: Vec::new(), retry_after: None, quota: None };
    match failure {
        Failure::Invalid(violations) => {
            Row { violations: fitting(violations), ..row(Code::InvalidArgument, "INVALID_FIELDS", summary(violations)) }
        }
        Failure::UnknownVariant(name) => {
            let name: String = name.chars().take(64).collect();
            row(Code::NotFound, "UNKNOWN_VARIANT", format!("no variant {name:?} is loaded"))
        }
        Failure::UnknownItem(id) => {
            let id: String = id.chars().take(256).collect();
            row(Code::NotFound, "UNKNOWN_ITEM", format!("no item has the id {id:?}"))
        }
        Failure::UnknownBundle(path) => {
            let path: String = path.chars().take(256).collect();
            row(Code::NotFound, "UNKNOWN_BUNDLE", format!("the registry holds no bundle {path:?}"))
        }
        Failure::Unmet { code, reason } => {
            // Reasons carry file names and texts of readers, and a status must fit its headers.
            row(Code::FailedPrecondition, code, reason.chars().take(ROOM / 2).collect())
        }
        Failure::OverQuota { client, retry_after } => Row {
            retry_after: Some(*retry_after),
            quota: Some(client.clone()),
            ..row(
                Code::ResourceExhausted,
                "OVER_QUOTA",
                format!("the quota of the key {client:?} is used up, try again in {} ms", retry_after.as_millis()),
            )
        },
        Failure::Overloaded { retry_after, .. } => Row {
            retry_after: Some(*retry_after),
            ..row(
                Code::ResourceExhausted,
                "OVERLOADED",
                format!("the backlog cannot be worked off in time, try again in {} ms", retry_after.as_millis()),
            )
        },
        Failure::Late(at) => row(Code::DeadlineExceeded, "LATE", format!("the deadline passed {}", place(*at))),
        Failure::NotReady { reason, retry_after } => Row {
            retry_after: Some(*retry_after),
            ..row(Code::Unavailable, "NOT_READY", format!("not ready: {reason}"))
        },
        Failure::Off(reason) => row(Code::FailedPrecondition, "OFF", (*reason).to_owned()),
        Failure::Unauthenticated(reason) => row(Code::Unauthenticated, "UNAUTHENTICATED", (*reason).to_owned()),
        Failure::Denied(reason) => row(Code::PermissionDenied, "DENIED", (*reason).to_owned()),
        // The cause may tell more than a caller should know; it is in the log under the request id.
        Failure::Internal(_) => {
            row(Code::Internal, "INTERNAL", format!("internal fault, see the server's log for request {request_id:?}"))
        }
    }
}

/// The status of a failed call, with google.rpc details.
pub fn status(failure: &Failure, request_id: &str) -> Status {
    let row = row(failure, request_id);
    let mut details = ErrorDetails::new();
    let about = if request_id.is_empty() {
        HashMap::new()
    } else {
        HashMap::from([("request_id".to_owned(), request_id.to_owned())])
    };
    details.set_error_info(row.reason, DOMAIN, about);
    if row.code == Code::InvalidArgument {
        let named = row.violations.into_iter().map(|wrong| FieldViolation::new(wrong.field, wrong.description));
        details.set_bad_request(named.collect::<Vec<_>>());
    }
    if let Some(client) = row.quota {
        details.add_quota_failure_violation(format!("key:{client}"), "requests of this key");
    }
    if row.retry_after.is_some() {
        details.set_retry_info(row.retry_after);
    }
    Status::with_error_details(row.code, row.message, details)
}

/// The code of that status.
pub fn code(failure: &Failure) -> Code {
    row(failure, "").code
}

/// The status of one failed request of a batch.
pub fn status_message(failure: &Failure, request_id: &str) -> v1::Status {
    let row = row(failure, request_id);
    let violation = |wrong: Violation| v1::FieldViolation { field: wrong.field, description: wrong.description };
    v1::Status {
        code: row.code as u32,
        message: row.message,
        violations: row.violations.into_iter().map(violation).collect(),
        retry_after: row.retry_after.and_then(|after| after.try_into().ok()),
    }
}

/// `2 invalid fields: k, history[3].value`.
fn summary(violations: &[Violation]) -> String {
    const NAMED: usize = 10;
    let names: Vec<&str> = violations.iter().take(NAMED).map(|wrong| wrong.field.as_str()).collect();
    let plural = if violations.len() == 1 { "field" } else { "fields" };
    let more = if violations.len() > NAMED { ", …" } else { "" };
    format!("{} invalid {plural}: {}{more}", violations.len(), names.join(", "))
}

/// The violations that fit, and one that counts the rest.
fn fitting(violations: &[Violation]) -> Vec<Violation> {
    let mut room = ROOM;
    let mut fitting = Vec::new();
    for wrong in violations {
        let Some(left) = room.checked_sub(wrong.field.len() + wrong.description.len() + 8) else { break };
        room = left;
        fitting.push(wrong.clone());
    }
    if fitting.len() < violations.len() {
        let more = violations.len() - fitting.len();
        fitting.push(Violation::new("…", format!("and {more} more invalid fields")));
    }
    fitting
}

fn place(at: Lateness) -> &'static str {
    match at {
        Lateness::Enqueue => "before the request could be queued",
        Lateness::Dequeue => "while the request was queued",
        Lateness::Step => "during the search",
        Lateness::Answer => "before the answer was ready",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Overload;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn each_failure_has_its_code_and_reason() {
        let failures = [
            (Failure::Invalid(vec![Violation::new("k", "is 0")]), Code::InvalidArgument, "INVALID_FIELDS"),
            (Failure::UnknownVariant("x".into()), Code::NotFound, "UNKNOWN_VARIANT"),
            (Failure::UnknownBundle("a/1".into()), Code::NotFound, "UNKNOWN_BUNDLE"),
            (Failure::UnknownItem("hat".into()), Code::NotFound, "UNKNOWN_ITEM"),
            (Failure::Unmet { code: "NO_PREVIOUS", reason: "x".into() }, Code::FailedPrecondition, "NO_PREVIOUS"),
            (Failure::OverQuota { client: "a".into(), retry_after: SECOND }, Code::ResourceExhausted, "OVER_QUOTA"),
            (Failure::Unauthenticated("no key"), Code::Unauthenticated, "UNAUTHENTICATED"),
            (
                Failure::Overloaded { reason: Overload::Busy, retry_after: SECOND },
                Code::ResourceExhausted,
                "OVERLOADED",
            ),
            (Failure::Late(Lateness::Dequeue), Code::DeadlineExceeded, "LATE"),
            (Failure::NotReady { reason: "warming", retry_after: SECOND }, Code::Unavailable, "NOT_READY"),
            (Failure::Off("events.path is not set"), Code::FailedPrecondition, "OFF"),
            (Failure::Denied("no right"), Code::PermissionDenied, "DENIED"),
            (Failure::Internal("secret".into()), Code::Internal, "INTERNAL"),
        ];
        for (failure, code, reason) in failures {
            let status = status(&failure, "r-1");
            assert_eq!(status.code(), code, "{failure:?}");
            let info = status.get_details_error_info().unwrap();
            assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason, DOMAIN));
            assert_eq!(info.metadata["request_id"], "r-1");
            assert!(!status.message().contains("secret"));
            assert_eq!(status_message(&failure, "r-1").code, code as u32);
            assert_eq!(super::code(&failure), code);
        }
    }

    #[test]
    fn every_violation_is_named() {
        let violations = vec![Violation::new("k", "is 0, expected 1 to 1000"), Violation::new("history", "is long")];
        let status = status(&Failure::Invalid(violations), "");
        assert_eq!(status.message(), "2 invalid fields: k, history");
        let named = status.get_details_bad_request().unwrap().field_violations;
        let named: Vec<_> = named.iter().map(|wrong| (wrong.field.as_str(), wrong.description.as_str())).collect();
        assert_eq!(named, [("k", "is 0, expected 1 to 1000"), ("history", "is long")]);
    }

    #[test]
    fn a_thousand_violations_still_fit_the_headers() {
        let violations: Vec<_> =
            (0..1000).map(|at| Violation::new(format!("history[{at}].value"), "is NaN, expected finite")).collect();
        let status = status(&Failure::Invalid(violations), "r");
        assert!(status.details().len() * 4 / 3 + status.message().len() < 7_000);
        let named = status.get_details_bad_request().unwrap().field_violations;
        assert!(named.len() > 20);
        assert!(named.last().unwrap().description.ends_with("more invalid fields"));
    }

    #[test]
    fn a_used_up_quota_names_the_key_and_when_to_try_again() {
        let status = status(&Failure::OverQuota { client: "shop".into(), retry_after: SECOND }, "");
        let quota = status.get_details_quota_failure().unwrap().violations;
        assert_eq!((quota.len(), quota[0].subject.as_str()), (1, "key:shop"));
        assert_eq!(status.get_details_retry_info().unwrap().retry_delay, Some(SECOND));
    }

    #[test]
    fn overload_says_when_to_try_again() {
        let failure = Failure::Overloaded { reason: Overload::QueueFull, retry_after: Duration::from_millis(1500) };
        let after = status(&failure, "").get_details_retry_info().unwrap().retry_delay;
        assert_eq!(after, Some(Duration::from_millis(1500)));
        let after = status_message(&failure, "").retry_after.unwrap();
        assert_eq!((after.seconds, after.nanos), (1, 500_000_000));
    }
}

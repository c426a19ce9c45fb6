//! The body of a webhook message: ids, states and links, but neither prompts nor pictures. A receiver requests further
//! data with the API.

use serde_json::{Map, Value, json};
use time::{OffsetDateTime, UtcOffset, format_description::BorrowedFormatItem, macros::format_description};

use super::{EventKind, Record, Status, WorkKind};

/// The body of the webhook message about the event `kind`, which happened to the generation at the time `at`.
pub fn notice(record: &Record, kind: EventKind, at: OffsetDateTime) -> Value {
    let work = record.job.work.kind();
    let place = format!("{}/{}", work.root(), record.id);
    let mut links =
        Map::from_iter([("self".to_owned(), json!(place)), ("events".to_owned(), json!(format!("{place}/events")))]);
    let mut error = Value::Null;
    match &record.status {
        Status::Succeeded { artifacts } => {
            let contents: Vec<String> =
                artifacts.iter().map(|artifact| format!("{place}/content/{}", artifact.index)).collect();
            let name = match work {
                WorkKind::Draw => "images",
                WorkKind::Sound | WorkKind::Film => "artifacts",
            };
            links.insert(name.to_owned(), json!(contents));
        }
        Status::Failed { problem } => error = json!({"code": problem.code, "retryable": problem.retryable}),
        Status::Queued | Status::Running | Status::Canceled | Status::Expired => {}
    }
    let mut notice = json!({
        "type": kind.as_str(),
        "timestamp": rfc3339(at),
        "data": {
            "id": record.id,
            "status": record.status.as_str(),
            "model": record.job.model,
            "attempt": record.attempt,
            "created_at": rfc3339(record.created_at),
            "started_at": record.started_at.map(rfc3339),
            "finished_at": record.finished_at.map(rfc3339),
            "error": error,
            "links": links,
        },
    });
    if let Some(flagged) = record.flagged() {
        notice["data"]["flagged"] = flagged.into();
    }
    notice
}

/// Makes the links in the body of a message begin with `public_url`, such as `https://example.com/ai`. If `public_url`
/// is empty, links stay paths.
pub fn linked(body: String, public_url: &str) -> String {
    if public_url.is_empty() {
        return body;
    }
    let Ok(mut notice) = serde_json::from_str::<Value>(&body) else { return body };
    let Some(links) = notice.pointer_mut("/data/links").and_then(Value::as_object_mut) else { return body };
    for link in links.values_mut().flat_map(|link| match link {
        Value::Array(links) => links.iter_mut().collect(),
        link => vec![link],
    }) {
        if let Value::String(path) = link {
            path.insert_str(0, public_url.trim_end_matches('/'));
        }
    }
    notice.to_string()
}

/// Formats a time in UTC with milliseconds, such as `2026-08-21T09:30:00.000Z`.
pub fn rfc3339(at: OffsetDateTime) -> String {
    const FORMAT: &[BorrowedFormatItem<'static>] =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    at.to_offset(UtcOffset::UTC).format(FORMAT).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn links_begin_with_the_public_url() {
        let body = |base: &str| {
            let links = json!({"self": format!("{base}/a"), "images": [format!("{base}/a/0"), format!("{base}/a/1")]});
            json!({"type": "generation.succeeded", "data": {"id": "/a", "links": links}}).to_string()
        };
        assert_eq!(linked(body(""), "https://example.com/ai/"), body("https://example.com/ai"));
        assert_eq!(linked(body(""), ""), body(""));
        assert_eq!(linked("{}".to_owned(), "https://example.com"), "{}");
    }

    #[test]
    fn times_are_utc_with_milliseconds() {
        assert_eq!(rfc3339(datetime!(2026-08-21 11:30:00.12345 +2)), "2026-08-21T09:30:00.123Z");
    }
}

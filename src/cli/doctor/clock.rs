//! The check of this machine's clock: compares it with the clock of PostgreSQL and with the `Date` of the bucket's
//! answers.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use latentd::{config::Config, ledger::Ledger};
use time::{OffsetDateTime, format_description::well_known::Rfc2822};

use super::finding::Finding;

/// A difference that is worth a warning. `Date` has whole seconds, and answers take time.
const NOTABLE_S: f64 = 5.0;

/// S3 refuses requests that are signed 15 minutes earlier or later; receivers refuse webhooks after 5 minutes.
const HARMFUL_S: f64 = 300.0;

/// How long a clock may take to answer. A clock that does not answer is a finding of another check.
const PATIENCE: Duration = Duration::from_secs(3);

pub async fn look(config: Arc<Config>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !config.database.url.is_empty() {
        let start = SystemTime::now();
        let state = tokio::time::timeout(PATIENCE, Ledger::inspect_postgres(&config.database)).await;
        if let Some(theirs) = state.ok().and_then(Result::ok).and_then(|state| state.clock) {
            findings.push(compared("PostgreSQL", theirs, start));
        }
    }
    if config.blobs.bucket().is_some() {
        let start = SystemTime::now();
        if let Some(theirs) = date_of_bucket(&config).await {
            findings.push(compared("the bucket", theirs, start));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok("not compared, because no other clock answers"));
    }
    findings
}

/// Compares a clock that was read between `start` and now with this machine's clock.
fn compared(whose: &str, theirs: SystemTime, start: SystemTime) -> Finding {
    let until = SystemTime::now();
    let seconds = |to: SystemTime, from: SystemTime| match to.duration_since(from) {
        Ok(later) => later.as_secs_f64(),
        Err(earlier) => -earlier.duration().as_secs_f64(),
    };
    let ahead = if theirs < start { seconds(start, theirs) } else { seconds(until, theirs).min(0.0) };
    let direction = if ahead > 0.0 { "ahead of" } else { "behind" };
    let text = format!("this machine's clock is {:.0} s {direction} the clock of {whose}", ahead.abs());
    let mend = "synchronize both clocks (chrony, systemd-timesyncd)";
    match ahead.abs() {
        off if off > HARMFUL_S => Finding::error(text, mend),
        off if off > NOTABLE_S => Finding::warning(text, mend),
        _ => Finding::ok(format!("agrees with the clock of {whose}")),
    }
}

/// The clock of the bucket's store, to the second.
async fn date_of_bucket(config: &Config) -> Option<SystemTime> {
    let blobs = &config.blobs;
    let aws = || format!("https://s3.{}.amazonaws.com", blobs.region);
    let address = if blobs.endpoint.is_empty() { aws() } else { blobs.endpoint.clone() };
    // Any answer has the date, also a refusal.
    let client =
        reqwest::Client::builder().timeout(PATIENCE).redirect(reqwest::redirect::Policy::none()).build().ok()?;
    let answer = client.head(address).send().await.ok()?;
    let date = answer.headers().get("date")?.to_str().ok()?;
    OffsetDateTime::parse(&date.replace("GMT", "+0000"), &Rfc2822).ok().map(SystemTime::from)
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Level, *};

    #[test]
    fn a_clock_within_the_time_of_the_request_agrees() {
        let now = SystemTime::now();
        let level = |offset_s: i64| {
            let offset = Duration::from_secs(offset_s.unsigned_abs());
            let theirs = if offset_s < 0 { now - offset } else { now + offset };
            compared("the bucket", theirs, now).level
        };
        assert_eq!([0, 3, -3].map(level), [Level::Ok; 3]);
        assert_eq!([60, -60].map(level), [Level::Warning; 2]);
        assert_eq!([4000, -4000].map(level), [Level::Error; 2]);
        let behind = compared("the bucket", now + Duration::from_secs(3600), now).text;
        assert!(behind.contains("behind the clock of the bucket"), "{behind}");
        let ahead = compared("the bucket", now - Duration::from_secs(3600), now).text;
        assert!(ahead.contains("3600 s ahead of"), "{ahead}");
    }
}

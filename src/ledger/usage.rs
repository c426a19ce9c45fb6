//! Usage per day, and what API keys have used of their limits. The transaction that accepts a generation also counts
//! it, so the numbers are exact with any number of processes.

use std::time::Duration;

use async_trait::async_trait;
use time::OffsetDateTime;

use super::{
    Acceptance, Ledger, Refusal, Result,
    change::Change,
    dialect::values,
    row::{Row, from_row},
};
use crate::generation::{KeyTerms, Spent, Window, day_of};

/// The usage of older days is erased.
pub const USAGE_KEPT: Duration = Duration::from_secs(400 * 86_400);

/// Accepted generations, their pictures, and their work in 10⁹ multiplications.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    pub generations: u64,
    pub images: u64,
    pub cost: f64,
}

/// The usage of one day (UTC).
#[derive(Clone, Debug, PartialEq)]
pub struct UsageOfDay {
    /// The date, such as `2026-11-29`.
    pub day: String,
    pub tenant: Usage,
    /// The usage of one key of the tenant alone.
    pub key: Usage,
}

/// The terms of a key and what it has used, if the key is valid now. `$2` is the day.
const SPENT: &str = "SELECT terms, window_began, window_used, coalesce((SELECT cost FROM daily_usage
         WHERE daily_usage.tenant_id = api_keys.tenant_id AND key_id = api_keys.id AND day = $2), 0.0) AS cost
     FROM api_keys WHERE id = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())";

/// The methods of the ledger for usage and limits.
#[async_trait]
pub trait Usages: AsRef<Ledger> + Send + Sync + 'static {
    /// What a key has used of its limits; `None` if the key is not valid now.
    async fn spent(&self, key: &str) -> Result<Option<Spent>> {
        let now = self.as_ref().read_one("SELECT now() AS now", values![]).await?.get("now")?;
        let row = self.as_ref().read(SPENT, values![key, day_of(now)]).await?.pop();
        row.map(|row| Ok(terms_and_spent(&row, now)?.1)).transpose()
    }

    /// The usage of a tenant and of one of its keys on the last `days` days that have any usage, newest first.
    async fn usage(&self, tenant: &str, key: &str, days: usize) -> Result<Vec<UsageOfDay>> {
        let own = |column: &str| format!("sum(CASE WHEN key_id = $2 THEN {column} ELSE 0 END)");
        let text = format!(
            "SELECT day, CAST(sum(generations) AS bigint) AS generations, CAST(sum(images) AS bigint) AS images,
                 sum(cost) AS cost, CAST({} AS bigint) AS own_generations, CAST({} AS bigint) AS own_images,
                 CAST({} AS double precision) AS own_cost
             FROM daily_usage WHERE tenant_id = $1 GROUP BY day ORDER BY day DESC LIMIT $3",
            own("generations"),
            own("images"),
            own("cost")
        );
        let of_day = |row: &Row| {
            Ok(from_row!(row => UsageOfDay {
                day;
                tenant: from_row!(row => Usage { generations, images, cost }),
                key: Usage {
                    generations: row.get("own_generations")?,
                    images: row.get("own_images")?,
                    cost: row.get("own_cost")?
                }
            }))
        };
        self.as_ref().read(&text, values![tenant, key, days]).await?.iter().map(of_day).collect()
    }
}

impl Change {
    /// Counts a generation in the usage of its day, and within the limits of its key. Acceptances run one after the
    /// other. The caller reads `now` before it waits for its turn, so the previous acceptance may end after `now`.
    ///
    /// # Errors
    /// [`Refusal::LimitReached`], [`Refusal::KeyEnded`].
    pub async fn charge(&mut self, acceptance: &Acceptance<'_>, now: OffsetDateTime) -> Result<()> {
        let Acceptance { tenant, api_key, job, cost, .. } = acceptance;
        let day = day_of(now);
        if let Some(id) = api_key {
            let row = self.fetch(SPENT, values![*id, &day]).await?.pop().ok_or(Refusal::KeyEnded)?;
            let (terms, spent) = terms_and_spent(&row, now)?;
            terms.check(&spent, *cost).map_err(Refusal::from)?;
            let taken = terms.rate_limit.and_then(|limit| limit.take(spent.window, now).ok());
            if let Some(Window { used, .. }) = taken {
                let text = "UPDATE api_keys
                     SET window_used = $2, window_began = CASE WHEN $2 = 1 THEN now() ELSE window_began END
                     WHERE id = $1";
                self.fetch(text, values![*id, used]).await?;
            }
        }
        let pictures = job.work.draw().map_or(0, |draw| draw.n);
        let text = "INSERT INTO daily_usage (tenant_id, key_id, day, generations, images, cost, last_at)
             VALUES ($1, $2, $3, 1, $4, $5, now())
             ON CONFLICT (tenant_id, key_id, day) DO UPDATE
             SET generations = daily_usage.generations + 1, images = daily_usage.images + excluded.images,
                 cost = daily_usage.cost + excluded.cost, last_at = excluded.last_at";
        self.fetch(text, values![*tenant, api_key.unwrap_or_default(), &day, pictures, *cost]).await.map(drop)
    }
}

fn terms_and_spent(row: &Row, now: OffsetDateTime) -> Result<(KeyTerms, Spent)> {
    let window = Window { began: row.get("window_began")?, used: row.get("window_used")? };
    Ok((row.json("terms")?, Spent { now, window, cost: row.get("cost")? }))
}

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
use crate::generation::{KeyTerms, Spent, Window, Work, day_of};

/// The usage of older days is erased.
pub const USAGE_KEPT: Duration = Duration::from_secs(400 * 86_400);

/// Accepted generations, what they make, and their work.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    pub generations: u64,
    pub images: u64,
    pub films: u64,
    /// The length of all films together.
    pub film_seconds: f64,
    pub sounds: u64,
    /// The length of all sounds together.
    pub sound_seconds: f64,
    /// In 10⁹ multiplications.
    pub cost: f64,
}

/// The columns of [`Usage`] with their types in SQL.
const COUNTS: [(&str, &str); 7] = [
    ("generations", "bigint"),
    ("images", "bigint"),
    ("films", "bigint"),
    ("film_seconds", "double precision"),
    ("sounds", "bigint"),
    ("sound_seconds", "double precision"),
    ("cost", "double precision"),
];

impl Usage {
    /// The usage of one generation.
    fn of(work: &Work, cost: f64) -> Usage {
        let generation = Usage { generations: 1, cost, ..Usage::default() };
        match work {
            Work::Draw(draw) => Usage { images: draw.n.into(), ..generation },
            Work::Sound(sound) => {
                Usage { sounds: sound.n.into(), sound_seconds: f64::from(sound.n) * sound.seconds, ..generation }
            }
            Work::Film(film) => {
                let film_seconds = f64::from(film.n) * f64::from(film.frames) / f64::from(film.fps);
                Usage { films: film.n.into(), film_seconds, ..generation }
            }
        }
    }
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
        let sums = COUNTS.map(|(column, kind)| {
            format!(
                "CAST(sum({column}) AS {kind}) AS {column},
                 CAST(sum(CASE WHEN key_id = $2 THEN {column} ELSE 0 END) AS {kind}) AS own_{column}"
            )
        });
        let text = format!(
            "SELECT day, {} FROM daily_usage WHERE tenant_id = $1 GROUP BY day ORDER BY day DESC LIMIT $3",
            sums.join(", ")
        );
        let of_day = |row: &Row| {
            Ok(from_row!(row => UsageOfDay {
                day;
                tenant: from_row!(row => Usage {
                    generations, images, films, film_seconds, sounds, sound_seconds, cost
                }),
                key: Usage {
                    generations: row.get("own_generations")?,
                    images: row.get("own_images")?,
                    films: row.get("own_films")?,
                    film_seconds: row.get("own_film_seconds")?,
                    sounds: row.get("own_sounds")?,
                    sound_seconds: row.get("own_sound_seconds")?,
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
        let Usage { generations, images, films, film_seconds, sounds, sound_seconds, cost } =
            Usage::of(&job.work, *cost);
        let text = "INSERT INTO daily_usage (tenant_id, key_id, day, generations, images, films, film_seconds, sounds,
                 sound_seconds, cost, last_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, now())
             ON CONFLICT (tenant_id, key_id, day) DO UPDATE
             SET generations = daily_usage.generations + excluded.generations,
                 images = daily_usage.images + excluded.images,
                 films = daily_usage.films + excluded.films,
                 film_seconds = daily_usage.film_seconds + excluded.film_seconds,
                 sounds = daily_usage.sounds + excluded.sounds,
                 sound_seconds = daily_usage.sound_seconds + excluded.sound_seconds,
                 cost = daily_usage.cost + excluded.cost, last_at = excluded.last_at";
        let (tenant, key) = (*tenant, api_key.unwrap_or_default());
        let values = values![tenant, key, &day, generations, images, films, film_seconds, sounds, sound_seconds, cost];
        self.fetch(text, values).await.map(drop)
    }
}

fn terms_and_spent(row: &Row, now: OffsetDateTime) -> Result<(KeyTerms, Spent)> {
    let window = Window { began: row.get("window_began")?, used: row.get("window_used")? };
    Ok((row.json("terms")?, Spent { now, window, cost: row.get("cost")? }))
}

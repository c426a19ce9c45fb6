//! What watchers in other processes see of running generations.

use std::collections::BTreeMap;

use bytes::Bytes;
use sqlx::{
    Row,
    postgres::PgRow,
    types::{Json, Uuid},
};

use crate::generation::{GenerationId, Preview, Progress};
use crate::ledger::{Glance, Report, StoreError};

use super::{PgStore, row};

/// A larger preview is not shown to other processes.
const MOST_BYTES: usize = 65536;

pub async fn report(store: &PgStore, reports: &[Report]) -> Result<(), StoreError> {
    if reports.is_empty() {
        return Ok(());
    }
    // The last of each counts: a statement may touch a row once.
    let mut told: BTreeMap<(Uuid, i64), Option<Progress>> = BTreeMap::new();
    let mut drawn: BTreeMap<(Uuid, i64, u32), &Preview> = BTreeMap::new();
    for report in reports {
        let (id, fence) = (row::uuid(report.lease.id), report.lease.fence);
        let progress = told.entry((id, fence)).or_default();
        *progress = report.progress.or(*progress);
        let small = report.previews.iter().filter(|preview| preview.bytes.len() <= MOST_BYTES);
        drawn.extend(small.map(|preview| ((id, fence, preview.index), preview)));
    }
    let (of, previews): (Vec<_>, Vec<_>) = drawn.into_iter().unzip();
    let mut loan = store.lend().await?;
    sqlx::query(
        "WITH held AS (
             SELECT id, fence, progress FROM unnest($1::uuid[], $2::bigint[], $3::jsonb[]) AS told (told_id, told_fence, progress)
             JOIN generations ON id = told_id AND fence = told_fence AND status = 'running'
         ), advanced AS (
             INSERT INTO generation_progress (generation_id, fence, progress)
             SELECT id, fence, progress FROM held WHERE progress IS NOT NULL
             ON CONFLICT (generation_id) DO UPDATE SET fence = excluded.fence, progress = excluded.progress
         )
         INSERT INTO artifact_previews (generation_id, fence, artifact, step, preview_index, media_type, bytes)
         SELECT id, fence, artifact, step, preview_index, media_type, bytes
         FROM unnest($4::uuid[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::text[], $10::bytea[])
             AS drawn (drawn_id, drawn_fence, artifact, step, preview_index, media_type, bytes)
         JOIN held ON id = drawn_id AND fence = drawn_fence
         ON CONFLICT (generation_id, artifact) DO UPDATE
         SET fence = excluded.fence, step = excluded.step, preview_index = excluded.preview_index,
             media_type = excluded.media_type, bytes = excluded.bytes",
    )
    .bind(told.keys().map(|(id, _)| *id).collect::<Vec<_>>())
    .bind(told.keys().map(|(_, fence)| *fence).collect::<Vec<_>>())
    .bind(told.values().map(|progress| progress.map(Json)).collect::<Vec<_>>())
    .bind(of.iter().map(|(id, ..)| *id).collect::<Vec<_>>())
    .bind(of.iter().map(|(_, fence, _)| *fence).collect::<Vec<_>>())
    .bind(of.iter().map(|(.., artifact)| i64::from(*artifact)).collect::<Vec<_>>())
    .bind(previews.iter().map(|preview| i64::from(preview.step)).collect::<Vec<_>>())
    .bind(previews.iter().map(|preview| i64::from(preview.preview_index)).collect::<Vec<_>>())
    .bind(previews.iter().map(|preview| preview.media_type.as_str()).collect::<Vec<_>>())
    .bind(previews.iter().map(|preview| &preview.bytes[..]).collect::<Vec<_>>())
    .execute(&mut *loan)
    .await?;
    loan.give_back();
    Ok(())
}

pub async fn glance(store: &PgStore, ids: &[GenerationId]) -> Result<Vec<Glance>, StoreError> {
    let mut loan = store.lend().await?;
    let rows = sqlx::query(
        "SELECT id, finished_at IS NOT NULL AS is_over,
                (SELECT coalesce(max(seq), 0) FROM generation_events WHERE generation_id = id) AS last_event,
                (SELECT progress FROM generation_progress AS p
                 WHERE p.generation_id = id AND p.fence = generations.fence AND status = 'running') AS progress,
                ARRAY(SELECT artifact FROM artifact_previews AS p
                      WHERE p.generation_id = id AND p.fence = generations.fence ORDER BY artifact) AS previewed,
                ARRAY(SELECT step FROM artifact_previews AS p
                      WHERE p.generation_id = id AND p.fence = generations.fence ORDER BY artifact) AS steps
         FROM generations WHERE id = ANY($1)",
    )
    .bind(row::uuids(ids))
    .fetch_all(&mut *loan)
    .await?;
    loan.give_back();
    rows.iter().map(seen).collect()
}

fn seen(row: &PgRow) -> Result<Glance, StoreError> {
    let small = |number: i64| u32::try_from(number).map_err(|error| sqlx::Error::Decode(Box::new(error)));
    let (artifacts, steps): (Vec<i64>, Vec<i64>) = (row.try_get("previewed")?, row.try_get("steps")?);
    let previews = artifacts.into_iter().zip(steps).map(|(artifact, step)| Ok((small(artifact)?, small(step)?)));
    Ok(Glance {
        id: row::id(row)?,
        last_event: row.try_get("last_event")?,
        is_over: row.try_get("is_over")?,
        // What another version of this program has written may be unreadable, and is only for show.
        progress: row.try_get::<Option<Json<Progress>>, _>("progress").ok().flatten().map(|Json(progress)| progress),
        previews: previews.collect::<Result<_, StoreError>>()?,
    })
}

pub async fn previews(store: &PgStore, id: GenerationId) -> Result<Vec<Preview>, StoreError> {
    let mut loan = store.lend().await?;
    let rows = sqlx::query(
        "SELECT artifact, step, preview_index, media_type, bytes FROM artifact_previews
         JOIN generations ON generations.id = generation_id AND generations.fence = artifact_previews.fence
         WHERE generation_id = $1 ORDER BY artifact",
    )
    .bind(row::uuid(id))
    .fetch_all(&mut *loan)
    .await?;
    loan.give_back();
    let preview = |row: &PgRow| {
        let media_type: String = row.try_get("media_type")?;
        Ok(Preview {
            index: row::small(row, "artifact")?,
            step: row::small(row, "step")?,
            preview_index: row::small(row, "preview_index")?,
            media_type: media_type.try_into().map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
            bytes: Bytes::copy_from_slice(row.try_get("bytes")?),
        })
    };
    rows.iter().map(preview).collect()
}

/// Erases what a report has left that crossed the end of its run.
pub async fn purge(store: &PgStore) -> Result<(), StoreError> {
    let mut loan = store.lend().await?;
    for sql in [
        "DELETE FROM generation_progress AS left_over
         WHERE NOT EXISTS (SELECT FROM generations WHERE id = left_over.generation_id AND status = 'running')",
        "DELETE FROM artifact_previews AS left_over
         WHERE NOT EXISTS (SELECT FROM generations WHERE id = left_over.generation_id AND status = 'running')",
    ] {
        sqlx::query(sql).execute(&mut *loan).await?;
    }
    loan.give_back();
    Ok(())
}

//! The SQL of progress and previews, which watchers in other processes see.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::json;

use super::{
    Report, Result,
    change::hex,
    dialect::{Value, values},
};
use crate::generation::{GenerationId, Preview, Progress};

/// Largest preview in bytes. Other processes do not see larger ones.
const MOST_BYTES: usize = 65536;

/// The statement of [`Fleet::snapshots`](super::Fleet::snapshots). Only a shared store has progress and previews.
pub fn snapshots(is_shared: bool) -> String {
    let (progress, previews) = if !is_shared {
        ("NULL", "'[]'")
    } else {
        (
            "(SELECT progress FROM generation_progress AS p
              WHERE p.generation_id = id AND p.fence = generations.fence AND status = 'running')",
            "(SELECT coalesce(jsonb_agg(jsonb_build_array(artifact, step) ORDER BY artifact), '[]')
              FROM artifact_previews AS p WHERE p.generation_id = id AND p.fence = generations.fence)",
        )
    };
    format!(
        "SELECT id, finished_at IS NOT NULL AS is_over, {progress} AS progress, {previews} AS previews,
             (SELECT coalesce(max(seq), 0) FROM generation_events WHERE generation_id = id) AS last_event
         FROM generations WHERE id = ANY($1)"
    )
}

/// Stores the reports of [`tables`] whose attempts still hold their leases.
pub const REPORT: &str = "
    WITH held AS (
        SELECT id, fence, progress FROM jsonb_to_recordset($1) AS told (told_id uuid, told_fence bigint, progress jsonb)
        JOIN generations ON id = told_id AND fence = told_fence AND status = 'running'
    ), advanced AS (
        INSERT INTO generation_progress (generation_id, fence, progress)
        SELECT id, fence, progress FROM held WHERE progress IS NOT NULL
        ON CONFLICT (generation_id) DO UPDATE SET fence = excluded.fence, progress = excluded.progress
    )
    INSERT INTO artifact_previews (generation_id, fence, artifact, step, preview_index, media_type, bytes)
    SELECT id, fence, artifact, step, preview_index, media_type, decode(file, 'base64')
    FROM jsonb_to_recordset($2) AS drawn (drawn_id uuid, drawn_fence bigint, artifact bigint, step bigint,
        preview_index bigint, media_type text, file text)
    JOIN held ON id = drawn_id AND fence = drawn_fence
    ON CONFLICT (generation_id, artifact) DO UPDATE
    SET fence = excluded.fence, step = excluded.step, preview_index = excluded.preview_index,
        media_type = excluded.media_type, bytes = excluded.bytes";

/// The values of [`REPORT`]. Only an attempt's last progress and previews count: a statement may write a row only once.
pub fn tables(reports: &[Report]) -> Result<Vec<Value>> {
    let mut told: BTreeMap<(GenerationId, i64), Option<Progress>> = BTreeMap::new();
    let mut drawn: BTreeMap<(GenerationId, i64, u32), &Preview> = BTreeMap::new();
    for report in reports {
        let (id, fence) = (report.lease.id, report.lease.fence);
        let progress = told.entry((id, fence)).or_default();
        *progress = report.progress.or(*progress);
        let small = report.previews.iter().filter(|preview| preview.bytes.len() <= MOST_BYTES);
        drawn.extend(small.map(|preview| ((id, fence, preview.index), preview)));
    }
    let told = told
        .into_iter()
        .map(|((id, fence), progress)| json!({"told_id": hex(id), "told_fence": fence, "progress": progress}));
    let drawn = drawn.into_iter().map(|((id, fence, artifact), preview)| {
        let (media_type, file) = (preview.media_type.as_str(), BASE64_STANDARD.encode(&preview.bytes));
        json!({"drawn_id": hex(id), "drawn_fence": fence, "artifact": artifact, "step": preview.step,
            "preview_index": preview.preview_index, "media_type": media_type, "file": file})
    });
    let (told, drawn) = (told.collect::<Vec<_>>(), drawn.collect::<Vec<_>>());
    Ok(values![Value::json(&told)?, Value::json(&drawn)?])
}

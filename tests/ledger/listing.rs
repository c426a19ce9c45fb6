//! Tests of lists: pages, events and counts.

use latentd::generation::{
    Film, GenerationId, InputImage, Job, Motion, SchedulerChoice, SeedMode, Sound, Work, WorkKind,
};
use latentd::ledger::{Counts, ListQuery, Outcome, Store};

use crate::place::{Place, accept, accept_of, accept_one, claim, generation, running};

async fn page(store: &dyn Store, query: ListQuery) -> (Vec<GenerationId>, bool) {
    let page = store.list(&query).await.unwrap();
    (page.records.iter().map(|record| record.id).collect(), page.has_more)
}

fn limit(limit: usize) -> ListQuery {
    ListQuery { limit, ..ListQuery::default() }
}

fn reversed(ids: &[GenerationId]) -> Vec<GenerationId> {
    ids.iter().rev().copied().collect()
}

pub async fn pages_are_newest_first(place: &dyn Place) {
    let store = place.open().await;
    assert_eq!(page(&*store, limit(3)).await, (vec![], false));
    let ids = accept(&*store, 5).await;
    assert_eq!(page(&*store, limit(3)).await, (reversed(&ids[2..]), true));
    assert_eq!(page(&*store, limit(5)).await, (reversed(&ids), false));
    assert_eq!(page(&*store, limit(100)).await, (reversed(&ids), false));
}

pub async fn pages_go_forward_and_backward(place: &dyn Place) {
    let store = place.open().await;
    let ids = accept(&*store, 7).await;
    let after = |id: usize| ListQuery { after: Some(ids[id]), ..limit(2) };
    assert_eq!(page(&*store, after(5)).await, (reversed(&ids[3..5]), true));
    assert_eq!(page(&*store, after(2)).await, (reversed(&ids[..2]), false));
    assert_eq!(page(&*store, after(0)).await, (vec![], false));
    let before = |id: usize| ListQuery { before: Some(ids[id]), ..limit(2) };
    assert_eq!(page(&*store, before(1)).await, (reversed(&ids[2..4]), true));
    assert_eq!(page(&*store, before(4)).await, (reversed(&ids[5..]), false));
    assert_eq!(page(&*store, before(6)).await, (vec![], false));
    let between = ListQuery { after: Some(ids[6]), before: Some(ids[2]), ..limit(2) };
    assert_eq!(page(&*store, between).await, (reversed(&ids[4..6]), true));
    // A cursor may be the id of a deleted generation.
    let gone = ListQuery { after: Some(GenerationId::new()), ..limit(1) };
    assert_eq!(page(&*store, gone).await, (vec![ids[6]], true));
}

pub async fn pages_are_filtered(place: &dyn Place) {
    let store = place.open().await;
    let (finished, lease) = running(&*store).await;
    store.finish(lease, Outcome::Succeeded(Vec::new())).await.unwrap();
    let (current, _) = running(&*store).await;
    let waiting = accept(&*store, 3).await;
    let other = accept_one(&*store, &Job { model: "large".to_owned(), ..generation() }).await;

    let status = |status: &str| ListQuery { status: Some(status.to_owned()), ..limit(2) };
    assert_eq!(page(&*store, status("succeeded")).await, (vec![finished], false));
    assert_eq!(page(&*store, status("running")).await, (vec![current], false));
    assert_eq!(page(&*store, status("queued")).await, (vec![other, waiting[2]], true));
    assert_eq!(page(&*store, status("expired")).await, (vec![], false));
    assert_eq!(page(&*store, status("' OR true --")).await, (vec![], false));
    let model = |model: &str| ListQuery { model: Some(model.to_owned()), ..limit(9) };
    assert_eq!(page(&*store, model("large")).await, (vec![other], false));
    let both = ListQuery { after: Some(waiting[1]), status: Some("queued".to_owned()), ..model("tiny") };
    assert_eq!(page(&*store, both).await, (vec![waiting[0]], false));
}

pub async fn pages_have_one_kind_of_work(place: &dyn Place) {
    let store = place.open().await;
    let drawn = accept(&*store, 2).await;
    let sound = Sound {
        prompt: "rain".to_owned(),
        negative_prompt: String::new(),
        seconds: 1.0,
        n: 1,
        steps: 2,
        guidance_scale: 2.5,
        scheduler: SchedulerChoice::Name("ddim".to_owned()),
        eta: 0.0,
        seed: 3,
        padding_seconds: None,
        logsnr_min: None,
        logsnr_max: None,
        seed_mode: SeedMode::PerImage,
    };
    let job = Job { work: Work::Sound(sound), ..generation() };
    let sounds = [accept_one(&*store, &job).await, accept_one(&*store, &job).await];
    let film = Film {
        prompt: String::new(),
        negative_prompt: String::new(),
        loras: Vec::new(),
        motion_adapter: None,
        image: Some(InputImage { upload: "0".repeat(64), width: 64, height: 64 }),
        frames: 14,
        fps: 7,
        width: 64,
        height: 64,
        n: 1,
        steps: 2,
        guidance_scale: 3.0,
        guidance_scale_2: None,
        motion: Some(Motion { min_guidance_scale: 1.0, motion_bucket_id: 127, noise_aug_strength: 0.02 }),
        decode_chunk_size: Some(8),
        max_sequence_length: None,
        scheduler: SchedulerChoice::Name("euler".to_owned()),
        seed: 3,
        seed_mode: SeedMode::PerImage,
    };
    let of_film = Job { work: Work::Film(film), ..generation() };
    let films = [accept_one(&*store, &of_film).await];
    let of = |kind| ListQuery { kind: Some(kind), ..limit(9) };
    assert_eq!(page(&*store, of(WorkKind::Draw)).await, (reversed(&drawn), false));
    assert_eq!(page(&*store, of(WorkKind::Sound)).await, (reversed(&sounds), false));
    assert_eq!(page(&*store, of(WorkKind::Film)).await, (films.to_vec(), false));
    assert_eq!(store.get(films[0]).await.unwrap().unwrap().job.work, of_film.work, "the work is stored");
    assert_eq!(page(&*store, limit(9)).await.0.len(), 5);
    let second = ListQuery { after: Some(sounds[1]), ..of(WorkKind::Sound) };
    assert_eq!(page(&*store, second).await, (vec![sounds[0]], false));
    assert_eq!(store.get(sounds[0]).await.unwrap().unwrap().job.work, job.work, "the work is stored");
}

pub async fn events_are_read_after_a_sequence_number(place: &dyn Place) {
    let store = place.open().await;
    let (id, lease) = running(&*store).await;
    accept(&*store, 1).await;
    store.finish(lease, Outcome::Canceled).await.unwrap();
    for (after, expected) in [(-1, vec![1, 2, 3]), (0, vec![1, 2, 3]), (2, vec![3]), (3, vec![]), (i64::MAX, vec![])] {
        let events = store.events(id, after).await.unwrap();
        assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), expected);
    }
}

pub async fn queued_and_running_generations_are_counted_separately(place: &dyn Place) {
    let store = place.open().await;
    assert_eq!(store.counts().await.unwrap(), Counts::default());
    let ids = accept(&*store, 5).await;
    let claimed = claim(&*store, 2).await;
    assert_eq!(store.counts().await.unwrap(), Counts { queued: 3, running: 2 });
    store.cancel(ids[4]).await.unwrap();
    for (_, lease) in claimed {
        store.finish(lease, Outcome::Succeeded(Vec::new())).await.unwrap();
    }
    assert_eq!(store.counts().await.unwrap(), Counts { queued: 2, running: 0 });
}

pub async fn counts_of_a_tenant_exclude_other_tenants(place: &dyn Place) {
    let store = place.open().await;
    for tenant in ["a", "b", "a", "b", "b"] {
        accept_of(&*store, tenant, 1.0).await;
    }
    claim(&*store, 2).await;
    let canceled = accept_of(&*store, "a", 1.0).await;
    store.cancel(canceled).await.unwrap();
    let counts = async |tenant| store.counts_of(tenant).await.unwrap();
    assert_eq!(counts("a").await, Counts { queued: 1, running: 1 });
    assert_eq!(counts("b").await, Counts { queued: 2, running: 1 });
    assert_eq!(counts("c").await, Counts::default());
}

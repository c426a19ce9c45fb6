//! The ledger: what every store must do, and what SQLite and the folder of blobs do besides.

#[path = "ledger/accepting.rs"]
mod accepting;
#[path = "ledger/blobs.rs"]
mod blobs;
#[path = "ledger/claiming.rs"]
mod claiming;
#[path = "ledger/ending.rs"]
mod ending;
#[path = "ledger/faults.rs"]
mod faults;
#[path = "ledger/listing.rs"]
mod listing;
#[path = "ledger/model.rs"]
mod model;
#[path = "ledger/place.rs"]
mod place;
#[path = "support/s3.rs"]
mod s3;

/// Runs every case of the suite on the places that an expression makes, which may await; where it makes none, the cases are
/// passed over. The comparison with the model takes so many runs.
macro_rules! conformance {
    ($store:ident, $place:expr, $runs:expr) => {
        conformance!($store, $place, $runs, [
            accepting::an_accepted_generation_is_queued_with_its_first_event,
            accepting::the_queue_has_a_bound,
            accepting::the_bound_holds_when_many_accept_at_once,
            accepting::an_id_is_accepted_once,
            accepting::every_field_of_a_request_comes_back,
            accepting::a_dropped_accept_leaves_all_or_nothing,
            accepting::a_new_store_sees_everything,
            claiming::the_oldest_are_claimed_first,
            claiming::concurrent_claimers_never_share_a_generation,
            claiming::nothing_is_claimed_from_an_empty_queue,
            claiming::overdue_generations_expire_and_are_not_claimed,
            claiming::what_began_once_never_expires,
            claiming::running_generations_are_queued_again_at_the_start,
            claiming::too_many_crashes_end_in_failure,
            claiming::a_canceled_run_is_not_queued_again_at_the_start,
            claiming::positions_count_the_older_ones,
            ending::success_keeps_the_images,
            ending::failure_keeps_the_problem,
            ending::a_stale_lease_changes_nothing,
            ending::one_of_two_racing_leases_wins,
            ending::a_released_attempt_does_not_count,
            ending::a_retry_waits_for_its_delay,
            ending::a_canceled_run_is_not_queued_again,
            ending::a_queued_generation_is_canceled_at_once,
            ending::a_running_generation_is_marked_once,
            ending::a_finished_generation_is_canceled_in_vain,
            ending::only_finished_generations_are_deleted,
            ending::unknown_generations_are_none,
            ending::retention_counts_from_the_end,
            listing::pages_are_newest_first,
            listing::pages_go_both_ways,
            listing::pages_are_filtered,
            listing::events_are_read_after_a_number,
            listing::counts_tell_queued_from_running,
        ]);
    };
    ($store:ident, $place:expr, $runs:expr, [$($file:ident::$case:ident),* $(,)?]) => {
        mod $store {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    if let Some(place) = $place {
                        crate::$file::$case(&place).await;
                    }
                }
            )*

            #[test]
            fn it_does_what_the_model_does() {
                crate::model::holds(|| async { $place }, $runs);
            }
        }
    };
}

conformance!(sqlite, Some(crate::place::SqlitePlace::new()), 48);

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

/// Runs every case of the suite on a place of stores.
macro_rules! conformance {
    ($store:ident, $place:ty, [$($file:ident::$case:ident),* $(,)?]) => {
        mod $store {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    crate::$file::$case(&<$place>::new()).await;
                }
            )*
        }
    };
}

conformance!(
    sqlite,
    crate::place::SqlitePlace,
    [
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
        claiming::spent_attempts_end_in_failure,
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
    ]
);

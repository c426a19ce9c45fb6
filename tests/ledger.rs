//! The ledger: what every store must do, and what SQLite, PostgreSQL and the folder of blobs do besides.

#[path = "ledger/accepting.rs"]
mod accepting;
#[path = "ledger/attending.rs"]
mod attending;
#[path = "ledger/blobs.rs"]
mod blobs;
#[path = "ledger/claiming.rs"]
mod claiming;
#[path = "ledger/clock.rs"]
mod clock;
#[path = "ledger/comparing.rs"]
mod comparing;
#[path = "ledger/crashing.rs"]
mod crashing;
#[path = "ledger/ending.rs"]
mod ending;
#[path = "ledger/faults.rs"]
mod faults;
#[path = "ledger/hinting.rs"]
mod hinting;
#[path = "ledger/keys.rs"]
mod keys;
#[path = "ledger/leasing.rs"]
mod leasing;
#[path = "ledger/listing.rs"]
mod listing;
#[path = "ledger/model.rs"]
mod model;
#[path = "ledger/outages.rs"]
mod outages;
#[path = "ledger/place.rs"]
mod place;
#[path = "ledger/plans.rs"]
mod plans;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "ledger/repeating.rs"]
mod repeating;
#[path = "support/s3.rs"]
mod s3;
#[path = "ledger/shared.rs"]
mod shared;
#[path = "ledger/sharing.rs"]
mod sharing;
#[path = "ledger/speed.rs"]
mod speed;
#[path = "ledger/upgrading.rs"]
mod upgrading;
#[path = "ledger/watching.rs"]
mod watching;

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
            repeating::a_key_stands_for_one_generation,
            repeating::a_key_is_for_one_request,
            repeating::a_key_is_its_tenants_own,
            repeating::a_key_whose_time_is_over_is_free_again,
            repeating::purging_forgets_only_keys_whose_time_is_over,
            repeating::an_erased_generation_takes_its_key_and_its_id_along,
            repeating::an_id_stands_for_one_request,
            repeating::what_was_accepted_is_not_refused_by_a_full_queue,
            repeating::an_answer_of_again_charges_nobody,
            repeating::many_requests_of_one_key_make_one_generation,
            repeating::many_requests_of_one_id_make_one_generation,
            repeating::of_many_requests_that_reuse_a_key_one_kind_wins,
            claiming::the_oldest_are_claimed_first,
            claiming::concurrent_claimers_never_share_a_generation,
            claiming::nothing_is_claimed_from_an_empty_queue,
            claiming::overdue_generations_expire_and_are_not_claimed,
            claiming::what_began_once_never_expires,
            claiming::running_generations_are_queued_again_at_the_start,
            claiming::too_many_crashes_end_in_failure,
            claiming::a_canceled_run_is_not_queued_again_at_the_start,
            claiming::positions_count_the_older_ones,
            leasing::a_lease_holds_until_it_ends,
            leasing::a_renewed_lease_is_not_taken_back,
            leasing::a_cancel_rides_on_the_renewal,
            leasing::each_is_taken_back_once_by_racing_reapers,
            leasing::a_zombie_changes_nothing,
            leasing::others_see_what_a_worker_reports,
            leasing::the_fence_grows_with_every_claim,
            leasing::what_was_taken_back_waits_for_its_delay,
            crashing::after_a_crash_it_runs_alone,
            crashing::what_comes_before_it_is_claimed_without_it,
            crashing::one_that_cannot_be_claimed_stops_nobody,
            crashing::those_that_ran_together_come_back_one_by_one,
            crashing::crashes_are_counted_apart_from_attempts,
            crashing::after_too_many_crashes_it_is_dead,
            crashing::a_dead_generation_is_revived,
            crashing::only_the_dead_are_revived,
            crashing::what_its_client_has_canceled_is_never_dead,
            crashing::an_attempt_that_aborted_its_process_is_the_last,
            crashing::only_the_latest_attempt_is_condemned,
            sharing::a_tenant_has_a_bound_of_its_own,
            sharing::a_tenants_bound_holds_when_many_accept_at_once,
            sharing::a_tenant_runs_no_more_than_it_may,
            sharing::no_tenant_runs_more_than_it_may_by_racing_claims,
            sharing::tenants_are_served_by_their_weights,
            sharing::a_tenant_that_comes_or_comes_back_brings_no_credit,
            sharing::a_greedy_tenant_waits_behind_a_modest_one,
            sharing::a_weight_counts_from_now_on,
            sharing::priority_comes_before_shares_and_age,
            sharing::waiting_raises_the_priority,
            sharing::nothing_is_raised_beyond_the_highest,
            sharing::positions_are_the_order_of_claims,
            sharing::a_worker_claims_only_for_models_that_it_has,
            sharing::one_that_must_wait_holds_up_nobody,
            ending::success_keeps_the_artifacts,
            ending::failure_keeps_the_problem,
            ending::a_stale_lease_changes_nothing,
            ending::one_of_two_racing_leases_wins,
            ending::a_released_attempt_does_not_count,
            ending::a_retry_waits_for_its_delay,
            ending::a_canceled_run_is_not_queued_again,
            ending::a_canceled_run_does_not_succeed_any_more,
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
            listing::counts_of_a_tenant_leave_others_out,
            watching::a_glance_tells_the_last_event,
            watching::events_have_no_gaps_whoever_changes_what,
            watching::inputs_are_found_by_their_tenant,
            watching::hints_reach_the_others,
            watching::many_hints_at_once_arrive,
            attending::a_worker_that_beats_is_listed,
            attending::a_drained_worker_learns_it_by_its_beat,
            attending::a_worker_that_leaves_is_gone,
            attending::the_workload_is_what_waits_and_runs,
            keys::a_key_comes_back_with_its_tenant,
            keys::a_new_key_brings_the_tenants_new_bounds,
            keys::a_tenant_that_came_without_a_key_can_have_one,
            keys::a_key_that_cannot_be_made_changes_nothing,
        ]);
    };
    ($store:ident, $place:expr, $runs:expr, [$($file:ident::$case:ident),* $(,)?]) => {
        mod $store {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    if let Some(place) = $place {
                        let case = crate::$file::$case(&place);
                        tokio::time::timeout(crate::place::PATIENCE, case).await.expect("it does not end");
                    }
                }
            )*

            #[test]
            fn a_store_does_what_the_model_does() {
                crate::comparing::a_store_does_what_the_model_does(|| async { $place }, $runs);
            }
        }
    };
}

conformance!(sqlite, Some(crate::place::SqlitePlace::new()), 48);
conformance!(postgresql, crate::place::PgPlace::new().await, 8);

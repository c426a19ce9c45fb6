//! Tests of the ledger: a suite that runs on SQLite and on PostgreSQL, tests of each database, and tests of the blobs.

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
#[path = "ledger/compiling.rs"]
mod compiling;
#[path = "ledger/crashing.rs"]
mod crashing;
#[path = "ledger/ending.rs"]
mod ending;
#[path = "ledger/estimating.rs"]
mod estimating;
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
#[path = "ledger/starring.rs"]
mod starring;
#[path = "ledger/upgrading.rs"]
mod upgrading;
#[path = "ledger/usage.rs"]
mod usage;
#[path = "ledger/watching.rs"]
mod watching;

/// Runs every case of the suite. `$place` is an expression that makes a new `Option<impl Place>` for each case and may
/// await; a case is skipped if the place is `None`. `$runs` is the number of random comparisons with the model.
macro_rules! conformance {
    ($store:ident, $place:expr, $runs:expr) => {
        conformance!($store, $place, $runs, [
            accepting::an_accepted_generation_is_queued_with_its_first_event,
            accepting::the_queue_has_a_bound,
            accepting::the_bound_holds_when_many_accept_at_once,
            accepting::an_id_is_accepted_once,
            accepting::every_field_of_a_request_is_stored,
            accepting::a_dropped_accept_stores_everything_or_nothing,
            accepting::a_reopened_store_reads_everything,
            repeating::a_repeated_key_returns_the_first_generation,
            repeating::a_key_cannot_be_reused_for_another_request,
            repeating::keys_are_separate_for_each_tenant,
            repeating::an_expired_key_can_be_used_again,
            repeating::purging_deletes_only_expired_keys,
            repeating::deleting_a_generation_frees_its_key_and_id,
            repeating::an_id_cannot_be_reused_for_another_request,
            repeating::a_full_queue_does_not_refuse_a_repeated_request,
            repeating::a_repeated_request_is_not_charged_again,
            repeating::concurrent_requests_with_one_key_create_one_generation,
            repeating::concurrent_requests_with_one_id_create_one_generation,
            repeating::concurrent_requests_that_reuse_a_key_succeed_for_one_kind,
            claiming::the_oldest_generations_are_claimed_first,
            claiming::concurrent_claimers_never_share_a_generation,
            claiming::nothing_is_claimed_from_an_empty_queue,
            claiming::overdue_generations_expire_and_are_not_claimed,
            claiming::a_generation_that_has_started_never_expires,
            claiming::running_generations_are_queued_again_at_startup,
            claiming::too_many_crashes_fail_the_generation,
            claiming::a_canceled_run_is_not_queued_again_at_startup,
            claiming::positions_count_older_generations,
            leasing::a_lease_is_valid_until_it_ends,
            leasing::a_renewed_lease_is_not_reaped,
            leasing::a_renewal_reports_cancel_requests,
            leasing::concurrent_reapers_reap_each_generation_once,
            leasing::a_reaped_lease_changes_nothing,
            leasing::other_stores_see_reported_progress_and_previews,
            leasing::every_claim_increments_the_fence,
            leasing::a_reaped_generation_waits_for_its_backoff,
            crashing::a_generation_runs_with_others_after_one_crash,
            crashing::a_crashed_generation_runs_alone,
            crashing::a_claim_stops_before_a_crashed_generation,
            crashing::a_crashed_generation_of_another_model_blocks_no_worker,
            crashing::generations_that_crashed_together_again_are_claimed_one_by_one,
            crashing::crashes_and_attempts_are_counted_separately,
            crashing::a_generation_is_dead_after_too_many_crashes,
            crashing::a_lost_device_counts_as_a_crash_and_not_as_an_attempt,
            crashing::reviving_a_dead_generation_queues_it_again,
            crashing::only_dead_generations_are_revived,
            crashing::a_canceled_generation_is_never_dead,
            crashing::giving_up_an_aborted_attempt_ends_its_generation,
            crashing::only_the_latest_attempt_can_be_given_up_as_aborted,
            sharing::each_tenant_has_its_own_queue_bound,
            sharing::a_tenants_queue_bound_holds_when_many_accept_at_once,
            sharing::a_tenant_runs_at_most_its_maximum,
            sharing::concurrent_claims_respect_a_tenants_maximum,
            sharing::tenants_share_the_queue_by_weight,
            sharing::new_and_returning_tenants_have_no_credit,
            sharing::one_request_does_not_wait_behind_all_requests_of_a_busy_tenant,
            sharing::a_new_weight_applies_to_later_generations,
            sharing::priority_comes_before_shares_and_age,
            sharing::waiting_raises_the_priority,
            sharing::waiting_never_raises_above_the_highest_priority,
            sharing::positions_match_the_order_of_claims,
            sharing::a_worker_claims_only_generations_of_its_models,
            sharing::delayed_and_overdue_generations_block_no_others,
            ending::a_success_stores_the_artifacts,
            ending::a_failure_stores_the_problem,
            ending::a_stale_lease_changes_nothing,
            ending::a_finish_and_a_reap_never_both_succeed,
            ending::a_released_attempt_does_not_count,
            ending::a_retry_waits_for_its_delay,
            ending::a_canceled_run_is_not_queued_again,
            ending::a_canceled_run_cannot_succeed,
            ending::a_queued_generation_is_canceled_at_once,
            ending::canceling_a_running_generation_marks_it_once,
            ending::canceling_a_finished_generation_changes_nothing,
            ending::only_finished_generations_are_deleted,
            ending::unknown_ids_return_nothing,
            ending::retention_starts_when_a_generation_ends,
            starring::a_star_keeps_a_generation_until_it_is_taken_away,
            starring::only_generations_that_succeeded_have_stars,
            starring::a_tenant_has_a_bound_of_stars,
            listing::pages_are_newest_first,
            listing::pages_go_forward_and_backward,
            listing::pages_are_filtered,
            listing::pages_have_one_kind_of_work,
            listing::events_are_read_after_a_sequence_number,
            listing::queued_and_running_generations_are_counted_separately,
            listing::counts_of_a_tenant_exclude_other_tenants,
            watching::a_snapshot_contains_the_last_event,
            watching::concurrent_changes_leave_no_gaps_in_the_events,
            watching::the_events_of_a_tenant_have_one_order_in_which_none_is_missed,
            watching::an_input_is_found_only_by_its_tenant,
            watching::hints_reach_other_stores,
            watching::many_hints_at_once_arrive,
            attending::a_worker_with_a_heartbeat_is_listed,
            attending::a_heartbeat_tells_a_worker_to_drain,
            attending::a_worker_that_leaves_is_not_listed,
            attending::the_workload_counts_queued_and_running_generations,
            attending::the_workload_is_what_ends_before_the_newcomer_begins,
            estimating::an_estimate_uses_the_measured_speed_of_the_model,
            estimating::recent_measurements_outweigh_old_ones,
            estimating::a_census_counts_what_is_not_finished_and_what_is_dead,
            keys::a_stored_key_is_returned_with_its_tenant,
            keys::a_new_key_changes_the_weight_and_bounds_of_its_tenant,
            keys::a_tenant_without_a_key_can_get_one,
            keys::a_refused_key_changes_nothing,
            keys::every_term_of_a_key_is_stored,
            keys::keys_are_listed_in_pages,
            keys::a_revoked_key_stays_revoked,
            keys::a_rotated_key_keeps_its_old_digest_for_a_while,
            usage::accepted_generations_are_counted_for_their_tenant_and_key,
            usage::films_and_sounds_are_counted_with_their_seconds,
            usage::a_rate_limit_holds_when_many_accept_at_once,
            usage::a_window_of_a_rate_limit_ends,
            usage::a_quota_holds_when_many_accept_at_once,
            usage::what_is_not_accepted_uses_up_nothing,
            usage::a_key_that_has_ended_creates_nothing,
        ]);
    };
    ($store:ident, $place:expr, $runs:expr, [$($file:ident::$case:ident),* $(,)?]) => {
        mod $store {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    if let Some(place) = $place {
                        let case = crate::$file::$case(&place);
                        tokio::time::timeout(crate::place::PATIENCE, case).await.expect("the case takes too long");
                    }
                }
            )*

            #[test]
            fn a_store_agrees_with_the_model() {
                crate::comparing::a_store_agrees_with_the_model(|| async { $place }, $runs);
            }
        }
    };
}

conformance!(sqlite, Some(crate::place::SqlitePlace::new()), 48);
conformance!(postgresql, crate::place::PgPlace::new().await, 8);

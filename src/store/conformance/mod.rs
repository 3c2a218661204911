//! What every store must do, as cases that each implementation runs.
//!
//! A case gets a fresh store and a clock that it moves by hand; it speaks only through the
//! [`Store`](super::Store) trait. A new rule of the ledger gets its case here, not beside one
//! implementation.

pub(super) mod append;
pub(super) mod bot_sends;
pub(super) mod fixture;
pub(super) mod identity;
pub(super) mod listing;
pub(super) mod nodes;
pub(super) mod outbox;
mod plain;
mod random;
pub(super) mod receipts;
pub(super) mod relays;
pub(super) mod retention;
pub(super) mod threads;
pub(super) mod turns;

/// Makes one test per case for a store. `$open` is an async function from a
/// [`Clock`](crate::clock::Clock) to whatever keeps the store alive and dereferences to it.
macro_rules! conformance {
    ($open:path) => {
        conformance!(@cases $open,
            append: [
                an_event_is_accepted_once,
                a_duplicate_inside_one_delivery_is_refused,
                a_duplicate_tells_what_was_answered_before,
                the_arrival_log_keeps_the_last_ones,
                an_arrival_that_could_not_be_stored_is_remembered,
                only_messages_take_a_place,
                a_thousand_appends_at_once_lose_nothing,
            ],
            identity: [
                one_conversation_through_every_alias,
                a_recycled_phone_number_starts_a_new_conversation,
                two_contacts_that_meet_are_reported,
                the_same_person_on_two_numbers_has_two_conversations,
                a_group_is_not_its_participant,
            ],
            turns: [
                a_turn_takes_one_message_in_order,
                a_claimed_conversation_is_not_claimed_again,
                every_claim_raises_the_epoch_and_counts_the_attempt,
                a_turn_keeps_its_messages_over_attempts,
                a_late_finish_is_fenced,
                a_finish_twice_is_done_once,
                finishing_makes_the_next_message_due,
                a_message_that_comes_during_a_turn_waits_for_it,
                a_release_waits_and_may_give_the_attempt_back,
                an_outage_is_remembered_until_the_turn_ends,
                a_dead_turn_is_kept_and_the_next_goes_on,
                a_claim_whose_answer_was_lost_is_freed,
                a_full_conversation_costs_its_neighbours_nothing,
            ],
            nodes: [
                a_lease_that_is_over_frees_everything,
                a_renewed_node_lives,
                a_dead_node_gets_no_work,
                leaving_frees_at_once,
            ],
            outbox: [
                replies_go_one_by_one_in_order,
                a_retry_keeps_its_place_and_its_time,
                a_number_with_a_backlog_keeps_nobody_else_waiting,
                a_paused_number_waits_and_others_go_on,
                a_budget_limits_one_number,
                a_refused_message_is_kept_and_the_next_goes_on,
                an_unsure_message_holds_back_the_next,
                an_unsure_message_ends_after_healthy_time_only,
                a_node_that_fails_does_not_slow_down_a_healthy_one,
                two_healthy_nodes_do_not_halve_the_wait,
                a_long_silence_counts_no_more_than_is_said,
                a_late_answer_settles_an_unsure_message,
                a_dead_nodes_send_becomes_unsure,
                a_send_whose_answer_was_lost_becomes_unsure,
                a_send_that_is_known_is_not_doubted,
                another_attempt_than_the_known_one_is_doubted,
            ],
            receipts: [
                a_tagged_receipt_settles_a_lost_answer,
                a_receipt_before_the_answer_is_adopted,
                a_failure_that_overtakes_the_answer_stands,
                a_failure_of_one_participant_is_not_the_groups,
                a_rate_limit_by_receipt_has_an_end,
                a_receipt_of_another_store_is_not_ours,
                a_failed_receipt_makes_a_dead_letter,
                a_rate_limit_by_receipt_is_tried_again_in_its_place,
                a_back_off_stands_beside_other_news_of_its_delivery,
                a_back_off_that_is_void_by_now_holds_back_nothing,
                a_late_receipt_closes_a_dead_letter,
            ],
            listing: [
                every_outgoing_is_listed_as_it_stands_and_in_pages,
            ],
            retention: [
                a_key_is_kept_for_its_age_and_then_forgotten,
                what_is_pending_is_never_pruned,
                what_stays_does_not_stand_in_the_way,
                an_open_dead_letter_keeps_its_message,
                a_closed_dead_letter_lets_go,
                an_unsettled_outgoing_is_kept_and_still_settles,
                payloads_go_before_keys,
                what_is_too_old_is_not_emptied_before_it_goes,
                a_round_is_bounded,
                only_one_node_has_the_duty_and_it_passes_on,
                a_conversation_goes_on_after_its_past_was_pruned,
                parked_receipts_go_after_eight_days,
                an_emptied_outgoing_is_not_sent_again,
            ],
            bot_sends: [
                a_bots_send_goes_out_to_whom_it_has_dialled,
                what_one_attempt_sent_the_next_does_not_send_again,
                in_one_attempt_the_same_may_be_said_twice,
                a_drained_attempt_counts_as_one_that_has_sent,
                after_the_end_a_turn_still_stands_in_for_a_while,
                a_bot_that_sends_after_its_end_is_noticed,
                a_key_is_one_send_outside_of_turns,
                outside_of_turns_only_what_nobody_heard_of_is_joined,
                what_is_held_goes_out_when_its_turn_ends_well,
                what_is_held_is_dropped_with_a_dead_turn,
                replies_stand_behind_what_the_bot_has_sent,
                a_bot_hears_what_meta_has_refused,
                a_send_whose_answer_is_lost_is_known_by_its_receipt,
                a_send_that_stays_unsure_is_unknown,
                which_attempts_have_sent_is_told,
                a_turn_has_room_for_so_many_sends,
                a_dialled_number_names_whom_meta_takes_it_for,
                a_send_is_forgotten_with_its_outgoing,
                a_key_is_one_send_over_attempts_that_hold_and_over_turns,
                a_second_try_after_the_end_joins_what_nobody_heard_of,
                what_was_held_by_an_attempt_that_is_over_is_no_answer,
                what_meta_has_refused_leaves_its_place_free,
                what_stands_behind_something_refused_keeps_its_place,
                what_is_said_to_be_apart_is_on_no_turns_record,
                who_is_known_by_the_other_way_to_dial_is_no_stranger,
                a_turn_that_was_given_back_is_claimed_again,
            ],
            relays: [
                each_is_relayed_once_in_the_order_in_which_it_came,
                what_one_node_has_taken_another_gets_when_that_is_gone,
                what_was_taken_by_a_lost_answer_comes_again,
                what_failed_waits_and_is_counted,
                a_number_whose_bot_is_down_keeps_nobody_else_waiting,
                a_status_tells_what_the_bot_knows_of_its_own_send,
                a_bot_is_told_of_its_send_before_it_hears_its_status,
                what_waits_too_long_is_dropped_and_counted,
            ],
            threads: [
                of_many_who_ask_at_once_one_makes_the_thread,
                a_request_that_comes_again_has_the_right_it_had,
                what_comes_after_its_right_is_refused_and_kept_as_an_orphan,
                what_is_completed_after_all_is_no_orphan,
                to_forget_begins_afresh_and_keeps_the_past,
                one_person_has_one_thread_by_every_name,
                who_is_not_known_is_made_by_name_and_by_no_id,
                to_ask_for_what_is_known_writes_nothing,
                the_past_is_forgotten_and_no_version_is_given_again,
            ],
        );
    };
    (@cases $open:path, $($group:ident: [$($case:ident,)*],)*) => {
        $(mod $group {
            $(#[tokio::test]
            async fn $case() {
                use $crate::store::conformance::{$group as cases, fixture};
                cases::$case(fixture::with($open).await).await;
            })*
        })*
    };
}
pub(super) use conformance;

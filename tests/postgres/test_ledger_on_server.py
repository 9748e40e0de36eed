"""The ledger in PostgreSQL does what it does in SQLite: the same tests, on a server."""

import pytest

from tests.study.test_ledger import (  # noqa: F401 - collected here, with a server's ledger
    test_a_failure_of_the_trials_own_is_not_an_interruption,
    test_a_finished_trial_is_there_for_the_next_driver,
    test_a_resumed_search_does_not_repeat_its_draws,
    test_a_search_trial_is_tried_again_at_its_own_point,
    test_a_stopped_trial_keeps_its_best_value_and_is_pruned_for_optuna,
    test_a_wider_span_of_a_later_driver_is_taken,
    test_epochs_of_all_attempts_make_one_history,
    test_grid_and_search_stand_side_by_side,
    test_levels_of_zero_and_nearly_zero_stand_in_one_study_that_optuna_can_read,
    test_the_latest_attempt_counts,
    test_what_a_dead_driver_left_open_is_interrupted,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

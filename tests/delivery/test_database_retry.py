"""What is done again, and what is not."""

from __future__ import annotations

import pytest

from airflow_provider_kk.delivery.sql.driver_errors import is_serialization_failure
from tests.delivery.test_driver_errors import DriverError


@pytest.mark.parametrize(
    "error",
    [
        DriverError(1213, "Deadlock found when trying to get lock; try restarting transaction"),
        DriverError(1205, "Beim Warten auf eine Sperre wurde die zulässige Wartezeit überschritten"),
        DriverError("Verklemmung entdeckt", pgcode="40P01"),
        DriverError("canceling statement due to lock timeout", sqlstate="55P03"),
        DriverError("40001", "[40001] Transaction (Process ID 52) was deadlocked on lock resources"),
    ],
)
def test_a_serialization_failure_is_known_in_every_language(error: DriverError) -> None:
    assert is_serialization_failure(error)


@pytest.mark.parametrize(
    "error",
    [
        DriverError(),
        DriverError(1062, "Duplicate entry '1213' for key 'PRIMARY'"),
        DriverError(2013, "Lost connection to MySQL server during query"),
        DriverError("deadlock of the value", sqlstate="22P02"),
    ],
)
def test_a_commit_of_unknown_outcome_is_not_a_serialization_failure(error: DriverError) -> None:
    assert not is_serialization_failure(error)

"""`mmrec dashboard` on a team's ledger: the server itself refuses to write."""

import optuna
import pytest
import sqlalchemy

from mmrec.cli_dashboard import only_read
from mmrec.study.store import StorageFailed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


def test_a_team_s_ledger_is_only_read(open_ledger):
    open_ledger()
    storage = open_ledger().storage
    only_read(storage.engine)
    names = optuna.get_all_study_names(storage)
    assert sorted(names) == ["made_up/grid", "made_up/search"]
    with pytest.raises(StorageFailed, match="read-only transaction"):
        optuna.delete_study(study_name=names[0], storage=storage)
    with (
        pytest.raises(sqlalchemy.exc.InternalError, match="read-only transaction"),
        storage.engine.begin() as connection,
    ):
        connection.exec_driver_sql("DELETE FROM studies")
    assert sorted(optuna.get_all_study_names(open_ledger().storage)) == sorted(names)

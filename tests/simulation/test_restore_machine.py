"""Backups and restores of one user over weeks, with everything at once, as in test_site_machine.

The real use cases run on the fakes. Every stored change is checked (I10, I16, I18 to I20), and after every step what
a restore needs must be there. In the end every restore is over, and nothing is kept or claimed for it.
"""

import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from sitebackup.domain.job import Job
from sitebackup.domain.restore import Restore, RestoreStatus
from sitebackup.restore.create_restore import RestoreRequest
from tests.builders import BY_SERVICE
from tests.simulation.invariants import check_restore
from tests.simulation.service import SITE_ID, SLICE, USER_ID, Crash
from tests.simulation.test_site_machine import SiteMachine, choices, some_providers

ANOTHER_SITE = "c" * 24
some_sites = st.sampled_from([None, None, ANOTHER_SITE])
happens_meanwhile = st.sampled_from(
    ["crash", "stand still", "cancel", "retry", "delete", "clean up", "create"]
)


class RestoreMachine(SiteMachine):
    """The rules of backups, and those of restores; a choice picks the backup or restore."""

    # --- what happens

    @rule(choice=choices, safety_backup=st.booleans(), site_id=some_sites, providers=some_providers)
    def restore(
        self, choice: int, safety_backup: bool, site_id: str | None, providers: list[str] | None
    ) -> None:
        job_id = self._pick(choice)
        found = self.service.jobs.documents.get(job_id, {})
        request = RestoreRequest(
            user_id=USER_ID,
            site_id=found.get("siteId", SITE_ID),
            job_id=job_id,
            providers=providers or "all",
            target_site_id=site_id,
            safety_backup=safety_backup,
        )
        with self.service.invocation():
            self.service.create_restore(BY_SERVICE, request, None, None)

    @rule(choice=choices, safety_backup=st.booleans(), site_id=some_sites)
    def a_whole_restore(self, choice: int, safety_backup: bool, site_id: str | None) -> None:
        """What happens most times."""
        self.restore(choice, safety_backup, site_id, None)
        self.deliver_all()
        self.deliver_all()

    @rule(calls=st.integers(0, 60), safety_backup=st.booleans(), choice=choices, what=happens_meanwhile)
    def a_restore_that_is_disturbed(self, calls: int, safety_backup: bool, choice: int, what: str) -> None:
        def crash() -> None:
            raise Crash

        actions = {
            "crash": crash,
            "stand still": self.service.stand_still,
            "cancel": self.service.cancel_restore,
            "retry": self.service.retry_restore,
            "delete": lambda: self.delete(choice, None),
            "clean up": self.clean_up,
            "create": lambda: self.create(1),
        }
        self.hook = (calls, actions[what])
        self.a_whole_restore(choice, safety_backup, None)
        self.hook = None

    @rule(choice=choices)
    def cancel_restore(self, choice: int) -> None:
        with self.service.invocation():
            self.service.change_restore.cancel(BY_SERVICE, self._pick_restore(choice))

    @rule(choice=choices)
    def retry_restore(self, choice: int) -> None:
        with self.service.invocation():
            self.service.change_restore.retry(BY_SERVICE, self._pick_restore(choice))

    @rule(choice=choices)
    def forget(self, choice: int) -> None:
        if urls := sorted(self.service.imports.uploads):
            self.service.imports.forget(urls[choice % len(urls)])

    @rule(choice=choices)
    def fall_back(self, choice: int) -> None:
        uploads = self.service.imports.uploads
        if urls := sorted(url for url, upload in uploads.items() if upload.state == "receiving"):
            self.service.imports.lose_bytes(urls[choice % len(urls)], SLICE - 1)

    @rule(provider=st.sampled_from(["site", "db"]), processing=st.integers(0, 8), fails=st.booleans())
    def import_api_changes(self, provider: str, processing: int, fails: bool) -> None:
        api = self.service.imports.by_provider[provider]
        api.takes, api.processing, api.fails = SLICE // 2, processing, "no room" if fails else None

    # --- what holds

    def _pick_restore(self, choice: int) -> str:
        ids = sorted((restore.id for restore in self._restores()), reverse=True)
        return ids[choice % len(ids)] if ids else "e" * 24

    @invariant()
    def what_is_restored_is_there(self) -> None:
        found: list[Job | Restore] = [*self._jobs(), *self._restores()]
        claimed = [(each.user_id, each.site_id) for each in found if each.claims_site]
        assert len(claimed) == len({*claimed}), "two at once on one site (I10)"
        for restore in self._restores():
            check_restore(restore)
            if (
                restore.status is RestoreStatus.RUNNING
                and (restore.deadline_at or self.service.now) > self.service.now
            ):
                self.service.check_source(restore)

    def teardown(self) -> None:
        """From here on all goes well: every restore ends, and nothing is kept for it."""
        super().teardown()
        if not hasattr(self, "service"):
            return
        for restore in self._restores():
            assert not restore.is_active, "a restore does not end"
            assert not restore.is_pinning, "nobody takes a pin out"
        assert not self.service.jobs.claimed
        assert not self.service.imports.mistakes


RestoreMachine.TestCase.settings = settings(
    deadline=None,
    max_examples=int(os.environ.get("SIMULATION_EXAMPLES", "60")),
    stateful_step_count=40,
    suppress_health_check=list(HealthCheck),
)
TestRestoreMachine = RestoreMachine.TestCase

"""The times and limits that the state machine works with.

What a deployment may want to change is a parameter of template.yaml; the rest keeps its default.
"""

from datetime import timedelta

from .lock import LockMode
from .model import Model


class Policy(Model, frozen=True, kw_only=True):
    """Seconds unless said otherwise."""

    attempt_seconds: int = 6 * 3600
    start_seconds: int = 60
    """After so long a task that nobody has begun is sent again, and the finish of a sealed job is asked for again."""
    stall_seconds: int = 900
    """After so long without progress all that a task lacks is sent again. No part may take upload_part longer."""
    max_stall_seconds: int = 3600
    lease_seconds: int = 60
    """A run that has an export open owns it for so long after its last sign of life."""
    upload_grace_seconds: int = 24 * 3600
    delete_grace_seconds: int = 7 * 24 * 3600
    keep_newest: int = 1
    """1: the newest good backup of each provider of a site never expires by age alone; 0: it does."""
    completed_record_days: int = 400
    """Records of backups whose data is gone are kept so long."""
    failed_record_days: int = 30
    """Records of failed and cancelled jobs are kept so long."""
    shrink_percent: int = 90
    """A backup that fell by more than this against those before it says so; 0: none does."""
    safety_backup_days: int = 7
    """Backups that restores make before they begin expire after so long."""
    restore_seconds: int = 24 * 3600
    """A restore that is not over so long after it began to send fails."""
    drill_days: int = 30
    """Within so long the newest good backup of every site is to be opened."""
    drill_gib_per_day: int = 1024
    """So much is opened by schedule; 0: nothing is."""
    lock_mode: LockMode = LockMode.OFF
    """How the versions of a done backup are locked."""
    lock_days: int = 30
    """They are locked for so long from the seal on."""
    quota_active_jobs: int = 0
    """A user may have so many backups under way at once, unless there is an exception; 0: any number."""
    quota_stored_bytes: int = 0
    """A user's backups may have so many bytes; 0: any number."""
    quota_restores_per_day: int = 0
    """A user may begin so many restores in a day of UTC; 0: any number."""
    quota_schedules: int = 0
    """A user may have so many schedules; 0: any number."""
    day_seconds: int = 24 * 3600
    """The length of a day in every retention rule; only tests shorten it."""
    max_tries: int = 5
    max_stream_stops: int = 2
    parts_in_flight: int = 64


def seconds(count: float) -> timedelta:
    """A duration."""
    return timedelta(seconds=count)

"""What retention decides, as the API shows it."""

from ..domain.job import Job, Status
from ..domain.model import Id, Model
from ..domain.retention import Action, Decision, Why
from .views import Time, time_text


class DecisionView(Model, frozen=True, kw_only=True):
    """What retention would do with a job now, and why."""

    job_id: Id
    status: Status
    finished_at: Time | None = None
    action: Action
    reason: Why
    until: Time | None = None


class RetentionView(Model, frozen=True, kw_only=True):
    """A page of decisions, newest job first; `cursor` leads to the next one."""

    backups: list[DecisionView]
    cursor: Id | None = None


def decision_view(job: Job, decision: Decision) -> DecisionView:
    """What retention would do with a job now, and why."""
    return DecisionView(
        job_id=job.id,
        status=job.status,
        finished_at=time_text(job.finished_at),
        action=decision.action,
        reason=decision.reason,
        until=time_text(decision.until),
    )

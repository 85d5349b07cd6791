"""What is set for users: a site's automatic backup, `/sites/{siteId}/schedule`; limits, `/users/{userId}/limits`."""

from typing import Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.utilities.typing import LambdaContext

from sitebackup.backup.manage_limits import PutLimits
from sitebackup.bootstrap import Bootstrap
from sitebackup.domain.errors import NotFound, NotYourUser, ServiceOnly
from sitebackup.domain.principal import Access, Scope
from sitebackup.domain.quota import OverQuota
from sitebackup.domain.schedule import Schedule
from sitebackup.entrypoints import http, queries
from sitebackup.entrypoints.quota_views import UsageView, usage_view
from sitebackup.entrypoints.schedule_views import SchedulesView, ScheduleView, schedule_view
from sitebackup.schedules.manage_schedule import PutSchedule
from sitebackup.telemetry import logger, metrics

bootstrap = Bootstrap.from_env()
api = http.Api(bootstrap.settings.claims)
MAY_REFUSE = (NotYourUser, NotFound)
manage_schedule, manage_limits = bootstrap.manage_schedule(), bootstrap.manage_limits()


def _view(schedule: Schedule) -> ScheduleView:
    return schedule_view(schedule, manage_schedule.next_runs(schedule))


@api.route("PUT /sites/{siteId}/schedule", Scope.WRITE, {200: ScheduleView}, *MAY_REFUSE, OverQuota)
def put(access: Access, body: PutSchedule, site_id: str) -> Response[str]:
    """Creates or replaces the schedule."""
    return http.ok(_view(manage_schedule.put(access, site_id, body)))


@api.route("GET /sites/{siteId}/schedule", Scope.READ, {200: ScheduleView}, *MAY_REFUSE)
def get(access: Access, query: queries.Owner, site_id: str) -> Response[str]:
    """The schedule with its next runs."""
    return http.ok(_view(manage_schedule.get(access, query.user_id, site_id)))


@api.route("DELETE /sites/{siteId}/schedule", Scope.DELETE, {204: None}, *MAY_REFUSE)
def delete(access: Access, query: queries.Owner, site_id: str) -> Response[str]:
    """From here on there are no automatic backups; those that were made stay."""
    manage_schedule.delete(access, query.user_id, site_id)
    return http.no_content()


@api.route("POST /sites/{siteId}/schedule/pause", Scope.WRITE, {200: ScheduleView}, *MAY_REFUSE)
def post_pause(access: Access, query: queries.Owner, site_id: str) -> Response[str]:
    """No runs until it is resumed."""
    return http.ok(_view(manage_schedule.pause(access, query.user_id, site_id, True)))


@api.route("POST /sites/{siteId}/schedule/resume", Scope.WRITE, {200: ScheduleView}, *MAY_REFUSE)
def post_resume(access: Access, query: queries.Owner, site_id: str) -> Response[str]:
    """Runs again, from the next tick on."""
    return http.ok(_view(manage_schedule.pause(access, query.user_id, site_id, False)))


@api.route("GET /schedules", Scope.READ, {200: SchedulesView}, NotYourUser)
def get_page(access: Access, query: queries.Schedules) -> Response[str]:
    """A page of schedules."""
    found, cursor = manage_schedule.page(access, query.user_id, query.limit, query.cursor)
    return http.ok(SchedulesView(schedules=[_view(schedule) for schedule in found], cursor=cursor))


@api.route("PUT /users/{userId}/limits", Scope.WRITE, {200: UsageView}, ServiceOnly)
def put_limits(access: Access, body: PutLimits, user_id: str) -> Response[str]:
    """Sets the exceptions of a user; a service alone may."""
    return http.ok(usage_view(user_id, manage_limits.put(access, user_id, body)))


@api.route("GET /users/{userId}/usage", Scope.READ, {200: UsageView}, NotYourUser)
def get_usage(access: Access, user_id: str) -> Response[str]:
    """What the user has of each limit."""
    return http.ok(usage_view(user_id, manage_limits.usage(access, user_id)))


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """An HTTP API event, payload format 2.0."""
    return api.resolve(event, context)

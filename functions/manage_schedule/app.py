"""What is set for users: a site's automatic backup, `/sites/{siteId}/schedule`; limits, `/users/{userId}/limits`."""

from typing import Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.utilities.typing import LambdaContext

from sitebackup.backup.manage_limits import PutLimits
from sitebackup.bootstrap import Bootstrap
from sitebackup.domain.principal import Scope
from sitebackup.domain.schedule import Schedule
from sitebackup.entrypoints import http
from sitebackup.entrypoints.quota_views import usage_view
from sitebackup.entrypoints.views import schedule_view
from sitebackup.schedules.manage_schedule import PutSchedule
from sitebackup.telemetry import logger, metrics

bootstrap = Bootstrap.from_env()
app = http.resolver(
    bootstrap.settings.claims,
    {
        "GET /sites/{siteId}/schedule": ("userId",),
        "DELETE /sites/{siteId}/schedule": ("userId",),
        "POST /sites/{siteId}/schedule/pause": ("userId",),
        "POST /sites/{siteId}/schedule/resume": ("userId",),
        "GET /schedules": ("userId", "limit", "cursor"),
    },
)
manage_schedule, manage_limits = bootstrap.manage_schedule(), bootstrap.manage_limits()


def _user() -> str | None:
    """The user whom the query names."""
    return http.parse_ids(app.current_event.query_string_parameters, "userId").get("userId")


def _view(schedule: Schedule) -> dict[str, Any]:
    return schedule_view(schedule, manage_schedule.next_runs(schedule))


@app.put("/sites/<site_id>/schedule")
def put(site_id: str) -> Response[str]:
    """Creates or replaces it."""
    access = http.access(app, Scope.WRITE)
    request = http.body(app.current_event, PutSchedule)
    return http.ok(_view(manage_schedule.put(access, site_id, request)))


@app.get("/sites/<site_id>/schedule")
def get(site_id: str) -> Response[str]:
    """The schedule with its next runs."""
    return http.ok(_view(manage_schedule.get(http.access(app, Scope.READ), _user(), site_id)))


@app.delete("/sites/<site_id>/schedule")
def delete(site_id: str) -> Response[str]:
    """From here on there are no automatic backups; those that were made stay."""
    manage_schedule.delete(http.access(app, Scope.DELETE), _user(), site_id)
    return http.no_content()


@app.post("/sites/<site_id>/schedule/pause")
def post_pause(site_id: str) -> Response[str]:
    """No runs until it is resumed."""
    return http.ok(_view(manage_schedule.pause(http.access(app, Scope.WRITE), _user(), site_id, True)))


@app.post("/sites/<site_id>/schedule/resume")
def post_resume(site_id: str) -> Response[str]:
    """Runs again, from the next tick on."""
    return http.ok(_view(manage_schedule.pause(http.access(app, Scope.WRITE), _user(), site_id, False)))


@app.get("/schedules")
def get_page() -> Response[str]:
    """A page of schedules."""
    access = http.access(app, Scope.READ)
    query = app.current_event.query_string_parameters
    past = http.parse_schedule_id(query["cursor"], "cursor") if "cursor" in query else None
    limit = http.parse_int(query, "limit", 20, 1, 100)
    found, cursor = manage_schedule.page(access, _user(), limit, past)
    return http.ok(
        {"schedules": [_view(schedule) for schedule in found], **({"cursor": cursor} if cursor else {})}
    )


@app.put("/users/<user_id>/limits")
def put_limits(user_id: str) -> Response[str]:
    """Sets the exceptions of a user; a service alone may."""
    access = http.access(app, Scope.WRITE)
    limits = http.body(app.current_event, PutLimits)
    return http.ok(usage_view(user_id, manage_limits.put(access, user_id, limits)))


@app.get("/users/<user_id>/usage")
def get_usage(user_id: str) -> Response[str]:
    """What the user has of each limit."""
    return http.ok(usage_view(user_id, manage_limits.usage(http.access(app, Scope.READ), user_id)))


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """An HTTP API event, payload format 2.0."""
    return app.resolve(event, context)

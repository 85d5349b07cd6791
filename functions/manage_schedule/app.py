"""A site's automatic backup: `/sites/{siteId}/schedule` and `/schedules`."""

from typing import Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.utilities.typing import LambdaContext

from sitebackup.bootstrap import Bootstrap
from sitebackup.domain.schedule import Schedule
from sitebackup.entrypoints import http
from sitebackup.entrypoints.views import schedule_view
from sitebackup.schedules.manage_schedule import PutSchedule
from sitebackup.telemetry import logger, metrics

app = http.resolver({"GET /schedules": ("limit", "cursor")})
manage_schedule = Bootstrap.from_env().manage_schedule()


def _view(schedule: Schedule) -> dict[str, Any]:
    return schedule_view(schedule, manage_schedule.next_runs(schedule))


@app.put("/sites/<site_id>/schedule")
def put(site_id: str) -> Response[str]:
    """Creates or replaces it."""
    request = http.body(app.current_event, PutSchedule)
    return http.ok(_view(manage_schedule.put(site_id, request)))


@app.get("/sites/<site_id>/schedule")
def get(site_id: str) -> Response[str]:
    """The schedule with its next runs."""
    return http.ok(_view(manage_schedule.get(site_id)))


@app.delete("/sites/<site_id>/schedule")
def delete(site_id: str) -> Response[str]:
    """From here on there are no automatic backups; those that were made stay."""
    manage_schedule.delete(site_id)
    return http.no_content()


@app.post("/sites/<site_id>/schedule/pause")
def post_pause(site_id: str) -> Response[str]:
    """No runs until it is resumed."""
    return http.ok(_view(manage_schedule.pause(site_id, True)))


@app.post("/sites/<site_id>/schedule/resume")
def post_resume(site_id: str) -> Response[str]:
    """Runs again, from the next tick on."""
    return http.ok(_view(manage_schedule.pause(site_id, False)))


@app.get("/schedules")
def get_page() -> Response[str]:
    """A page of schedules."""
    query = app.current_event.query_string_parameters
    past = http.parse_id(query["cursor"], "cursor") if "cursor" in query else None
    found, cursor = manage_schedule.page(http.parse_int(query, "limit", 20, 1, 100), past)
    return http.ok(
        {"schedules": [_view(schedule) for schedule in found], **({"cursor": cursor} if cursor else {})}
    )


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """An HTTP API event, payload format 2.0."""
    return app.resolve(event, context)

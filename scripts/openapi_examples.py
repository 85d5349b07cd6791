"""The examples of docs/openapi.json: values of the very types that the functions take and answer with."""

from __future__ import annotations

from sitebackup.backup.create_job import CreateBackup
from sitebackup.backup.manage_limits import PutLimits
from sitebackup.domain.drill import DrillState
from sitebackup.domain.job import Status
from sitebackup.domain.model import Model
from sitebackup.domain.restore import RestoreStatus
from sitebackup.domain.retention import Action, Why
from sitebackup.entrypoints.download_views import DownloadView
from sitebackup.entrypoints.drill_views import CoverageView, DayView, OneSiteView, SiteView
from sitebackup.entrypoints.quota_views import OneUsageView, UsageView
from sitebackup.entrypoints.restore_views import (
    ProviderRehearsalView,
    RehearsalView,
    RestoreProgressView,
    RestoresView,
    RestoreTaskView,
    RestoreView,
)
from sitebackup.entrypoints.retention_views import DecisionView, RetentionView
from sitebackup.entrypoints.routes import OpenApi
from sitebackup.entrypoints.schedule_views import SchedulesView, ScheduleView
from sitebackup.entrypoints.views import DrillView, JobsView, JobView, ObjectView, ProgressView, TaskView
from sitebackup.restore.create_download import DownloadRequest
from sitebackup.restore.create_restore import RestoreRequest
from sitebackup.schedules.manage_schedule import PutSchedule

USER, SITE = "5f0000000000000000000001", "6a0000000000000000000001"
JOB, RESTORE = "6b0539ca9af75ebbde6865b0", "6b0539ca9af75ebbde6865b1"
CREATED, FINISHED, LATER = (
    "2030-01-31T02:30:00.000Z",
    "2030-01-31T02:31:05.250Z",
    "2030-02-01T02:30:00.000Z",
)
SIZE, CRC, VERSION = 734_003_200, "ar8xYHyHqVk=", "3HL4kqtJvjVBH40Nrjfkd"
DONE = ProgressView(bytes_done=SIZE, bytes_total=SIZE, parts_done=44, parts_total=44, percent=100)
GIVEN_BACK = RestoreProgressView(bytes_done=SIZE, bytes_total=SIZE, percent=100)

A_JOB = JobView(
    job_id=JOB,
    user_id=USER,
    site_id=SITE,
    status=Status.DONE,
    attempt=1,
    version=53,
    progress=DONE,
    tasks={
        "site": TaskView(
            status=Status.DONE,
            progress=DONE,
            finished_at=FINISHED,
            object=ObjectView(
                bucket="backups",
                key=f"{USER}/{SITE}/{JOB}/site.zip",
                size=SIZE,
                checksum_crc64nvme=CRC,
                version_id=VERSION,
                members=1204,
            ),
            drill=DrillView(state=DrillState.OK, at=LATER, members=1204),
        )
    },
    created_at=CREATED,
    started_at=CREATED,
    updated_at=FINISHED,
    finished_at=FINISHED,
    expires_after_days=60,
)
A_RESTORE = RestoreView(
    restore_id=RESTORE,
    job_id=JOB,
    user_id=USER,
    site_id=SITE,
    source_site_id=SITE,
    status=RestoreStatus.DONE,
    attempt=1,
    version=97,
    safety_backup=False,
    progress=GIVEN_BACK,
    tasks={"site": RestoreTaskView(status=Status.DONE, progress=GIVEN_BACK, finished_at=FINISHED)},
    created_at=CREATED,
    started_at=CREATED,
    updated_at=FINISHED,
    finished_at=FINISHED,
)
A_SCHEDULE = ScheduleView(
    site_id=SITE,
    user_id=USER,
    cron="daily",
    time_zone="Europe/Berlin",
    expires_after_days=60,
    paused=False,
    next_runs=[LATER],
    last_tick=CREATED,
    last_job_id=JOB,
    created_at=CREATED,
    updated_at=FINISHED,
)
A_SITE = SiteView(user_id=USER, site_id=SITE, last_verified_at=LATER, unproven_since=LATER)
A_USAGE = UsageView(
    user_id=USER,
    active_jobs=OneUsageView(used=1, limit=5),
    stored_bytes=OneUsageView(used=SIZE, limit=10**12, exception=True),
    restores_per_day=OneUsageView(used=0, limit=10, resets_at="2030-02-01T00:00:00.000Z"),
    schedules=OneUsageView(used=1),
)
OF_EACH: tuple[Model, ...] = (
    A_USAGE,
    PutLimits(stored_bytes=10**12, schedules="unlimited"),
    CreateBackup(user_id=USER, site_id=SITE, providers=["site"], expires_after_days=60),
    DownloadRequest(provider="site"),
    RestoreRequest(user_id=USER, site_id=SITE, job_id=JOB, providers="all", safety_backup=False),
    PutSchedule(user_id=USER, cron="weekly", time_zone="Europe/Berlin"),
    A_JOB,
    JobsView(jobs=[A_JOB], cursor=JOB),
    A_RESTORE,
    RestoresView(restores=[A_RESTORE]),
    RehearsalView(
        dry_run=True,
        would_start=True,
        job_id=JOB,
        site_id=SITE,
        safety_backup=True,
        providers={
            "site": ProviderRehearsalView(
                size=SIZE, checksum_crc64nvme=CRC, version_id=VERSION, max_size=10 * SIZE, obstacles=[]
            )
        },
    ),
    A_SCHEDULE,
    SchedulesView(schedules=[A_SCHEDULE], cursor=USER + SITE),
    DownloadView(
        url=f"https://backups.s3.us-east-1.amazonaws.com/{USER}/{SITE}/{JOB}/site.zip?versionId={VERSION}&…",
        expires_at=FINISHED,
        file_name=f"{SITE}-site-20300131T023005Z.zip",
        size=SIZE,
        checksum_crc64nvme=CRC,
        version_id=VERSION,
    ),
    RetentionView(
        backups=[
            DecisionView(
                job_id=JOB,
                status=Status.DONE,
                finished_at=FINISHED,
                action=Action.KEEP,
                reason=Why.NEWEST_GOOD,
            )
        ]
    ),
    CoverageView(
        drill_days=30,
        sites=1200,
        opened=1188,
        unread=3,
        overdue=0,
        oldest=CREATED,
        counted_at=LATER,
        last_day=DayView(bytes=40 * SIZE, seconds=93.4),
    ),
    OneSiteView(site=A_SITE),
    OpenApi(openapi="3.1.1", info={"title": "Site Backup", "version": "1"}, paths={}),
)
EXAMPLES = {type(each): each for each in OF_EACH}

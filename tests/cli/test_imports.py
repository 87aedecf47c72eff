"""Jobs of other schedulers: what is taken over, and that every peculiarity is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from raftcron.cli.importers import crontab, dkron, kubernetes
from raftcron.cli.importers.crontab import read
from tests.api.bench import bench
from tests.cli.conftest import call

NOW = 1_767_225_600_000  # 2026-01-01T00:00:00Z

TABLE = r"""
# m h dom mon dow command
SHELL=/bin/bash
MAILTO="ops@example.com"
PATH=/usr/bin:/bin
CRON_TZ=Europe/Berlin
*/5 * * * * /opt/backup.sh --all
@daily python3 /srv/report.py
0 3 * * 1-5 mail -s hi x%dear%you \% too
@reboot /opt/once
@every_minute /opt/x
61 * * * * /opt/wrong
5 4
0 0 12 * * MON /opt/six
"""


def named(found: Any) -> dict[str, dict[str, Any]]:
    return {job["name"]: job for job in found.jobs}


def warned(found: Any, *words: str) -> bool:
    return any(all(word in warning for word in words) for warning in found.warnings)


def test_a_crontab_with_all_its_peculiarities() -> None:
    """Each line becomes a job or a warning, with its number."""
    found = crontab.read(TABLE, "UTC", has_user=False)
    jobs = named(found)
    assert jobs["backup"]["executor"] == {
        "type": "shell",
        "command": ["/bin/bash", "-c", "/opt/backup.sh --all"],
        "env": {"PATH": "/usr/bin:/bin"},
    }
    assert jobs["backup"]["timezone"] == "Europe/Berlin"
    assert jobs["backup"]["overlap"] == {"policy": "allow"}
    assert jobs["report"]["schedule"] == "@daily"
    mail = jobs["mail"]["executor"]
    assert mail["command"][-1] == "mail -s hi x"
    assert mail["stdin"] == "dear\nyou % too\n"
    assert warned(found, "line 4", "MAILTO")
    assert warned(found, "line 9", "%")
    assert warned(found, "line 10", "@reboot", "boot")
    assert warned(found, "line 11", "@every_minute")
    assert warned(found, "line 12", "61")
    assert warned(found, "line 13", "too few")
    assert warned(found, "line 14", "six fields")
    assert warned(found, "overlap")


def test_a_system_crontab_names_users() -> None:
    """The sixth field is who runs it."""
    found = read("17 * * * * root cd / && run-parts /etc/cron.hourly\n", "UTC", has_user=True)
    (job,) = found.jobs
    assert job["executor"]["user"] == "root"
    assert job["executor"]["command"] == "cd / && run-parts /etc/cron.hourly"


def test_six_fields_on_demand() -> None:
    """Seconds first, as Quartz and Spring have it."""
    (job,) = read("*/10 0 12 * * MON /opt/six\n", "UTC", has_user=False, seconds_first=True).jobs
    assert (job["schedule"], job["executor"]["command"]) == ("*/10 0 12 * * MON", "/opt/six")


def test_equal_commands_get_names_of_their_own() -> None:
    """The same table gives the same names."""
    table = "0 1 * * * /opt/x.sh a\n0 2 * * * /opt/x.sh b\n"
    assert [job["name"] for job in read(table, "UTC", has_user=False).jobs] == ["x", "x-2"]


CRONJOB = """
apiVersion: batch/v1
kind: CronJob
metadata: {name: report, namespace: shop, labels: {app: shop}}
spec:
  schedule: "30 2 * * *"
  timeZone: Europe/Berlin
  concurrencyPolicy: Forbid
  startingDeadlineSeconds: 300
  suspend: true
  jobTemplate:
    spec:
      backoffLimit: 2
      activeDeadlineSeconds: 600
      template:
        spec:
          containers:
          - name: c
            image: shop/report:1
            command: [python, report.py]
            args: ["--all"]
            workingDir: /srv
            env:
            - {name: A, value: "1"}
            - {name: B, valueFrom: {secretKeyRef: {name: s, key: k}}}
---
kind: Deployment
metadata: {name: other}
"""


def test_a_cronjob_of_kubernetes() -> None:
    """Policies are taken over; what an image would bring is told."""
    import yaml

    found = kubernetes.read(list(yaml.safe_load_all(CRONJOB)), NOW)
    (job,) = found.jobs
    assert job == {
        "name": "shop.report",
        "schedule": "30 2 * * *",
        "timezone": "Europe/Berlin",
        "executor": {
            "type": "shell",
            "command": ["python", "report.py", "--all"],
            "env": {"A": "1", "B": "${secret:s.k}"},
            "cwd": "/srv",
        },
        "overlap": {"policy": "skip"},
        "placement": {"on": "any"},
        "dst": {"gap": "skip", "fold": "both"},
        "paused": True,
        "start_deadline": "300s",
        "timeout": "600s",
        "kill_after": "30s",
        "delivery": "at_least_once",
        "retry": {"max_attempts": 3, "backoff": "10s", "max_backoff": "6m"},
        "labels": {"app": "shop"},
    }
    assert warned(found, "shop/report:1")
    assert warned(found, "B", "valueFrom")
    assert warned(found, "Deployment")


DKRON = [
    {
        "name": "ping",
        "schedule": "@every 10s",
        "executor": "http",
        "executor_config": {
            "method": "POST",
            "url": "http://127.0.0.1:9/",
            "headers": '["A: b"]',
            "expectCode": "200, 202",
        },
        "concurrency": "forbid",
        "retries": 2,
        "metadata": {"team": "x"},
    },
    {
        "name": "child",
        "parent_job": "ping",
        "executor": "shell",
        "executor_config": {"command": "/bin/echo 'a b'", "env": "A=1,B=2", "timeout": "30s"},
        "tags": {"role": "web:2"},
        "disabled": True,
    },
    {"name": "nats", "schedule": "@every 1m", "executor": "nats"},
]


def test_jobs_of_dkron() -> None:
    """As its API shows them."""
    found = dkron.read([DKRON])
    jobs = named(found)
    assert jobs["ping"]["executor"] == {
        "type": "http", "method": "POST", "url": "http://127.0.0.1:9/", "headers": {"A": "b"},
        "expect_status": "200,202",
    }  # fmt: skip
    assert jobs["ping"]["overlap"] == {"policy": "skip"}
    assert jobs["ping"]["retry"] == {"max_attempts": 3}
    assert jobs["child"]["after"] == [{"job": "ping", "on": "success"}]
    assert jobs["child"]["schedule"] == "@manual"
    assert jobs["child"]["executor"]["command"] == ["/bin/echo", "a b"]
    assert jobs["child"]["executor"]["env"] == {"A": "1", "B": "2"}
    assert jobs["child"]["placement"] == {"on": "any", "tags": {"role": "web"}}
    assert jobs["child"]["paused"] is True
    assert jobs["child"]["timeout"] == "30s"
    assert warned(found, "nats")
    assert warned(found, "count behind a tag")


@pytest.mark.parametrize(("kind", "text"), [("crontab", TABLE), ("k8s", CRONJOB), ("dkron", json.dumps(DKRON))])
async def test_what_is_imported_goes_through_apply(kind: str, text: str, tmp_path: Path) -> None:
    """Jobs on stdout are sent and taken as they are; warnings are on stderr."""
    file = tmp_path / "table"
    file.write_text(text)
    result = await call("import", kind, str(file))
    assert result.exit_code == 0, result.stderr
    assert "warning: " in result.stderr
    jobs = json.loads(result.stdout)["jobs"]
    assert jobs
    async with bench(1) as cluster:
        answer = (await cluster.ask("POST", "/v1/jobs:apply", {"jobs": jobs})).expect(200)
        assert {one["result"] for one in answer.json["results"]} == {"created"}, answer.json


async def test_what_is_imported_can_be_looked_at(tmp_path: Path) -> None:
    """As a table, and as the names alone; what is applied is JSON unless YAML is asked for."""
    file = tmp_path / "crontab"
    file.write_text("0 3 * * * /usr/bin/backup\n@hourly /usr/bin/tidy\n")
    said = {form: (await call("import", "crontab", str(file), "-o", form)).stdout for form in ("json", "table", "name")}
    names = [job["name"] for job in json.loads(said["json"])["jobs"]]
    assert said["name"].split() == names
    head, *rows = said["table"].splitlines()
    assert head.split() == ["NAME", "SCHEDULE", "TIMEZONE", "EXECUTOR"]
    assert [row.split()[0] for row in rows] == names

"""Tables as people have them: each oddity is carried over or told, and nothing makes an import fall over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftcron.cli.importers import Imported, crontab, dkron, kubernetes
from raftcron.cli.importers.sound import sound
from tests.cli.conftest import call

NOW = 1_767_225_600_000  # 2026-01-01T00:00:00Z


def of_crontab(text: str, *, has_user: bool = False, zone: str = "UTC") -> Imported:
    return crontab.read(text, zone, has_user=has_user, now_ms=NOW)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('MAILTO=""\n* * * * * x', "line 1: MAILTO is empty"),
        ("MAILFROM=a\n* * * * * x", "line 1: MAILFROM concerns mail"),
        ("PATH=$HOME/bin:$PATH\n* * * * * x", "line 1: PATH: cron does not put anything in the place of $"),
        ('"A B"=c\n* * * * * x', "line 1: 'A B' cannot be a variable here"),
        ("* * * * * root /opt/x", "line 1: the command begins with 'root': if that is a user"),
        ("0 0 12 * * MON-FRI /opt/x", "seconds first"),
        ("*/5 * * * * * /opt/x", "seconds first"),
        ("* * * * * run-parts /etc/cron.d", "run-parts runs all of a directory"),
        ("* * * * * test -x /usr/sbin/anacron || /opt/x", "leaves its work to anacron"),
        ("7 25 cron.weekly nice run-parts /etc/cron.weekly", "reads like a line of anacrontab(5)"),
        ("5/10 * * * * x", "`5/10` goes on to the end of the field"),
        ("* * * * * echo a \\\n* * * * * x", "line 1: ends with a backslash"),
        ("@600 x", "@600 is not known here: left out"),
        ("* * * * * x", "these end after 7d (timeout)"),
        ("* * * * * x", "cron forgets what fell due"),
        ("* * * * * x", "`executor.user` names another one"),
        ("* * * * * x", "home directory"),
    ],
)
def test_each_oddity_of_a_crontab_is_told(text: str, told: str) -> None:
    """With its line, where it has one."""
    assert any(told in warning for warning in of_crontab(text).warnings), of_crontab(text).warnings


@pytest.mark.parametrize("command", ["tar -czf x y", "php -f cron.php", "awk 1", "sunset --now", "./run.sh"])
def test_a_usual_command_is_not_taken_for_a_field(command: str) -> None:
    """No warning that is none."""
    found = of_crontab(f"* * * * * {command}")
    assert [warning for warning in found.warnings if warning.startswith("line 1")] == []


@pytest.mark.parametrize(
    ("line", "schedule"),
    [
        ("~ 3 * * * x", "H 3 * * *"),
        ("0~29 3 * * * x", "H(0-29) 3 * * *"),
        ("30~ ~5 * * * x", "H(30-59) H(0-5) * * *"),
        ("@every_minute x", "* * * * *"),
        ("*/5\t*  *\t* sun x", "*/5 * * * sun"),
        ("@Daily x", "@Daily"),
    ],
)
def test_what_only_some_crons_write_is_translated(line: str, schedule: str) -> None:
    """A drawn number is H."""
    (job,) = sound(of_crontab(line), NOW).jobs
    assert job["schedule"] == schedule


def test_settings_count_for_what_stands_below_them() -> None:
    """A variable, the shell, the zone, the home directory and the delay; an empty zone is the machine's again."""
    text = """
    * * * * * first
    A=1
    HOME=/srv
    CRON_TZ=Asia/Tokyo
    RANDOM_DELAY=15
    * * * * * second
    A=2
    CRON_TZ=
    # Makes tea
    * * * * * third
    """
    first, second, third = of_crontab(text, zone="Europe/Berlin").jobs
    assert (first["timezone"], second["timezone"], third["timezone"]) == (
        "Europe/Berlin",
        "Asia/Tokyo",
        "Europe/Berlin",
    )
    assert "env" not in first["executor"]
    assert second["executor"]["env"] == {"A": "1", "HOME": "/srv"}
    assert second["executor"]["cwd"] == "/srv"
    assert (first.get("jitter"), second["jitter"]) == (None, "15m")
    assert third["executor"]["env"]["A"] == "2"
    assert third["description"] == "Makes tea (crontab, line 11)"


def test_a_night_job_is_told_what_becomes_of_it_when_the_clocks_change() -> None:
    """Only where they change."""
    told = [of_crontab("30 2 * * * x", zone=zone).warnings for zone in ("Europe/Berlin", "Asia/Tokyo")]
    assert [any("change of the clocks" in warning for warning in warnings) for warnings in told] == [True, False]


def test_a_system_table_names_users_and_groups() -> None:
    """What is no user is told."""
    found = of_crontab("1 * * * * www-data:web php x.php\n2 * * * * /opt/x y\n", has_user=True)
    assert (found.jobs[0]["executor"]["user"], found.jobs[0]["executor"]["group"]) == ("www-data", "web")
    assert any("'/opt/x' is read as the user" in warning for warning in found.warnings)


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("cd / && run-parts --report /etc/cron.hourly", "cron.hourly"),
        ("cd /srv/app && RAILS_ENV=production bundle exec rake x", "bundle"),
        ("[ -x /usr/bin/certbot ] && /usr/bin/certbot renew", "certbot"),
        ("/usr/bin/flock -n /tmp/l /opt/sync.sh", "l"),
        ("it's unbalanced", "it-s"),
        ("/usr/bin/env python3 -m http.server", "http"),
    ],
)
def test_a_job_is_called_after_its_program(command: str, name: str) -> None:
    """As far as that can be told."""
    assert of_crontab(f"* * * * * {command}").jobs[0]["name"] == name


async def test_the_place_of_a_table_tells_whether_it_names_users(tmp_path: Path) -> None:
    """In /etc/cron.d it does; --personal says otherwise, and a zone that is not said is a warning."""
    place = tmp_path / "etc" / "cron.d"
    place.mkdir(parents=True)
    (place / "backup").write_text("0 3 * * * root /opt/backup\n")
    system = await call("import", "crontab", str(place / "backup"))
    assert json.loads(system.stdout)["jobs"][0]["executor"] == {
        "type": "shell", "command": "/opt/backup", "user": "root"
    }  # fmt: skip
    assert "times are read as UTC" in system.stderr
    personal = await call("import", "crontab", "--personal", "--timezone", "Asia/Tokyo", str(place / "backup"))
    assert json.loads(personal.stdout)["jobs"][0]["executor"]["command"] == "root /opt/backup"
    assert "times are read as UTC" not in personal.stderr
    assert (await call("import", "crontab", "--timezone", "Mars", str(place / "backup"))).exit_code == 2


# ---- Kubernetes


def cronjob(spec: dict[str, Any] | None = None, job: Any = None, pod: Any = None, container: Any = None) -> Imported:
    box = {"name": "c", "image": "i", "command": ["x"]} | (container or {})
    template = {"template": {"spec": {"containers": [box]} | (pod or {})}} | (job or {})
    whole = {"schedule": "0 12 * * *", "timeZone": "UTC", "jobTemplate": {"spec": template}} | (spec or {})
    return kubernetes.read([{"kind": "CronJob", "metadata": {"name": "a"}, "spec": whole}], NOW)


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (cronjob({"timeZone": None}), "names no timeZone"),
        (cronjob({"concurrencyPolicy": "Odd"}), "'Odd' is not known"),
        (cronjob({"startingDeadlineSeconds": 0}), "startingDeadlineSeconds 0 would let nothing start"),
        (cronjob({"failedJobsHistoryLimit": 30}), "the last 30 runs are kept"),
        (cronjob({"schedule": "0 0 */2 * 1"}), "either one was enough, here both must match"),
        (cronjob({"schedule": "@every 5m"}), "counts from the job's creation"),
        (cronjob(), "has no activeDeadlineSeconds"),
        (cronjob(job={"activeDeadlineSeconds": 60}), "bounds all tries together"),
        (cronjob(), "6 times at most"),
        (cronjob(job={"parallelism": 3}), "parallelism 3 is left out"),
        (cronjob(job={"completions": 5}), "completions 5 is left out"),
        (cronjob(job={"ttlSecondsAfterFinished": 5}), "ttlSecondsAfterFinished of the job"),
        (cronjob(job={"podFailurePolicy": {"rules": []}}), "podFailurePolicy of the job"),
        (cronjob(pod={"initContainers": [{"name": "x"}]}), "initContainers of the pod"),
        (cronjob(pod={"serviceAccountName": "x"}), "serviceAccountName of the pod"),
        (cronjob(pod={"nodeSelector": {"disk": "ssd"}}), "started with --tag disk=ssd"),
        (cronjob(pod={"volumes": [{"name": "v"}]}), "volumes of the pod"),
        (cronjob(pod={"containers": [{"command": ["x"]}, {"name": "side"}]}), "not side"),
        (cronjob(pod={"containers": []}), "has no container: left out"),
        (cronjob(container={"command": None}), "names no command"),
        (cronjob(container={"command": None, "args": ["-v"]}), "names only args"),
        (cronjob(container={"envFrom": [{}]}), "envFrom of the container"),
        (cronjob(container={"resources": {"limits": {}}}), "resources of the container"),
        (cronjob(container={"env": [{"name": "A", "valueFrom": {"fieldRef": {}}}]}), "valueFrom fieldRef"),
    ],
)
def test_each_oddity_of_a_cronjob_is_told(found: Imported, told: str) -> None:
    """With the job's name."""
    assert any(told in warning and warning.startswith("a: ") for warning in found.warnings), found.warnings


def test_what_kubernetes_puts_into_a_command_is_put_there() -> None:
    """$(NAME) is no command of a shell; $$( is written $(; an empty variable is empty."""
    env = [{"name": "A", "value": 1}, {"name": "B", "value": "$(A)/x"}, {"name": "E"}]
    (job,) = cronjob(container={"command": ["sh", "-c", "echo $(A) $(B) $$(date) $(nobody)"], "env": env}).jobs
    assert job["executor"]["command"] == ["sh", "-c", "echo 1 1/x $(date) $(nobody)"]
    assert job["executor"]["env"] == {"A": "1", "B": "1/x", "E": ""}


def test_policies_of_a_cronjob() -> None:
    """Each where it is meant."""
    found = cronjob(
        {"concurrencyPolicy": "Replace", "timeZone": "Europe/Berlin", "schedule": "30 2 * * *"},
        {"backoffLimit": 0, "activeDeadlineSeconds": 60},
        {"terminationGracePeriodSeconds": 5},
    )
    (job,) = found.jobs
    assert job["overlap"] == {"policy": "replace"}
    assert (job["timeout"], job["kill_after"]) == ("60s", "5s")
    assert "retry" not in job
    assert job["dst"] == {"gap": "skip", "fold": "both"}


@pytest.mark.parametrize("wrap", [
    lambda one: [{"kind": "CronJobList", "items": [{key: one[key] for key in ("metadata", "spec")}]}],
    lambda one: [{"kind": "List", "items": [one, {"kind": "Service"}]}],
    lambda one: [one, {"kind": "Service"}, "text", None],
    lambda one: [[one]],
])  # fmt: skip
def test_lists_and_documents(wrap: Any) -> None:
    """The items of a CronJobList do not say what they are."""
    spec = {"schedule": "@daily", "jobTemplate": {"spec": {"template": {"spec": {"containers": [{"command": ["x"]}]}}}}}
    found = kubernetes.read(wrap({"kind": "CronJob", "metadata": {"name": "a"}, "spec": spec}), NOW)
    assert [job["name"] for job in found.jobs] == ["a"]


# ---- Dkron


def dkron_job(executor_config: dict[str, Any] | None = None, **fields: Any) -> Imported:
    config = {"command": "x"} | (executor_config or {})
    one = {"name": "a", "schedule": "0 0 12 * * *", "executor": "shell", "executor_config": config} | fields
    return dkron.read([one], NOW)


HTTP: dict[str, Any] = {"executor": "http", "url": None}


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (dkron_job({"command": 'echo "x'}), "cannot be split into words"),
        (dkron_job({"command": ""}), "it has no command"),
        (dkron_job({"command": "a && b"}), "signs of a shell"),
        (dkron_job({"allowed_exitcodes": "0, 3"}), "allowed_exitcodes '0, 3' is left out"),
        (dkron_job({"payload": "aGk="}), "payload is left out"),
        (dkron_job({"timeout": "soon"}), "its timeout, 'soon', cannot be read"),
        (dkron_job(), "has no timeout"),
        (dkron_job(), "runs it on every node"),
        (dkron_job(tags={"a": "b"}), "without a count"),
        (dkron_job(tags={"a": "b:3"}), "a count behind a tag (3)"),
        (dkron_job(tags={"a": "b:1"}), "started with --tag a=b"),
        (dkron_job(processors={"files": {}}), "processors is left out"),
        (dkron_job(owner_email="a@b"), "owner_email is left out"),
        (dkron_job(ephemeral=True), "ephemeral"),
        (dkron_job(schedule="@every 10s"), "counts from the job's creation"),
        (dkron_job(schedule="*/5 * * * *"), "five fields"),
        (dkron_job(schedule="@odd"), "left out"),
        (dkron_job(executor="kafka"), "'kafka' is not known here"),
        (dkron_job(parent_job="b"), "has a parent and a schedule"),
        (dkron_job({"url": "http://a/"}, executor="http"), "has no expectCode"),
        (dkron_job({"url": "http://a/", "expectBody": "ok.*"}, executor="http"), "is a regular expression"),
        (dkron_job({"url": "http://a/", "headers": "A: b"}, executor="http"), "its headers cannot be read"),
        (dkron_job({"url": "http://a/", "tlsNoVerifyPeer": "true"}, executor="http"), "tlsNoVerifyPeer is left out"),
        (dkron_job({"url": "http://a/"}, executor="http"), "a redirect is followed by Dkron"),
    ],
)
def test_each_oddity_of_a_dkron_job_is_told(found: Imported, told: str) -> None:
    """With the job's name."""
    assert any(told in warning and warning.startswith("a: ") for warning in found.warnings), found.warnings


def test_fields_of_a_dkron_job() -> None:
    """What has a place here is there."""
    (job,) = dkron_job(
        {"mem_limit_kb": "16384", "timeout": "1h30m0.5s", "shell": "true", "command": "a && b"},
        schedule="CRON_TZ=Europe/Berlin 0 30 2 * * *",
        tags={"role": "web"},
        starts_at="2026-02-01T00:00:00Z",
        expires_at="2027-01-01T00:00:00Z",
        displayname="A job",
    ).jobs
    assert job["executor"] == {"type": "shell", "command": "a && b", "memory_limit": "16384KiB"}
    assert (job["schedule"], job["timezone"], job["timeout"]) == ("0 30 2 * * *", "Europe/Berlin", "5400500ms")
    assert job["placement"] == {"on": "all", "tags": {"role": "web"}}
    assert (job["start_at"], job["end_at"], job["description"]) == (
        "2026-02-01T00:00:00Z", "2027-01-01T00:00:00Z", "A job"
    )  # fmt: skip
    assert job["dst"] == {"gap": "skip", "fold": "both"}
    (hook,) = dkron_job({"url": "http://a/", "timeout": "5", "expectBody": "ok"}, executor="http").jobs
    assert (hook["timeout"], hook["executor"]["expect_body"]) == ("5s", "ok")


def test_parents_come_first_under_the_names_that_they_get() -> None:
    """And who has none here is left out, with those behind it."""
    config = {"executor": "shell", "executor_config": {"command": "x"}}
    found = dkron.read(
        [[
            {"name": "grandchild", "parent_job": "child", **config},
            {"name": "child", "parent_job": "the parent", **config},
            {"name": "the parent", "schedule": "@every 1h", **config},
            {"name": "orphan", "parent_job": "nobody", **config},
            {"name": "after-orphan", "parent_job": "orphan", **config},
        ]],
        NOW,
    )  # fmt: skip
    kept = sound(found, NOW)
    assert [job["name"] for job in kept.jobs] == ["the-parent", "child", "grandchild"]
    assert kept.jobs[1]["after"] == [{"job": "the-parent", "on": "success"}]
    assert any("orphan: left out: /after: the job 'nobody'" in warning for warning in kept.warnings)


def test_an_instant_that_is_past_is_left_out() -> None:
    """It could never fire, so the cluster would refuse it."""
    kept = sound(dkron_job(schedule="@at 2018-01-02T15:04:00Z"), NOW)
    assert kept.jobs == []
    assert any("lies in the past" in warning for warning in kept.warnings)


# ---- whatever there is

FIELDS = """
    kind items metadata name namespace labels annotations spec schedule timeZone concurrencyPolicy suspend jobTemplate
    template containers command args env value valueFrom secretKeyRef key backoffLimit activeDeadlineSeconds executor
    nodeSelector executor_config tags retries parent_job timezone shell timeout headers expectCode url method ephemeral
    owner displayname starts_at expires_at disabled successfulJobsHistoryLimit terminationGracePeriodSeconds
"""
KEYS = st.sampled_from(FIELDS.split())
TEXTS = st.sampled_from(
    ["", "CronJob", "List", "shell", "http", "x 'y", "0 0 * * *", "@every 5m", "UTC", "Europe/Berlin", "CRON_TZ=",
     "true", "$(A) $$(B)", "1h", "5", "a:b", "\\x00", "é", "${secret:x}", "200,", '["A: b"]']
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=25,
)


def taken(found: Imported) -> None:
    """Sound once more, and in JSON: what is left has no fault."""
    kept = sound(found, NOW)
    assert sound(Imported(kept.jobs, []), NOW) == Imported(kept.jobs, [])
    json.dumps(kept.jobs)


@settings(max_examples=60, deadline=None)
@given(found=VALUES)
def test_no_document_makes_an_import_fall_over(found: Any) -> None:
    """Whatever a file holds, where a job is expected."""
    job = {"spec": {"template": {"spec": {"containers": [found]}}}}
    whole = {"kind": "CronJob", "metadata": found, "spec": {"schedule": "@daily", "jobTemplate": job}}
    taken(kubernetes.read([found, whole, {"kind": "CronJob", "spec": found}], NOW))
    more = found if isinstance(found, dict) else {}
    taken(dkron.read([found, {"name": "a", "executor": "http", "executor_config": found}, {"name": "b"} | more], NOW))


LINES = st.lists(
    st.sampled_from(["* * * * *", "@daily", "~", "1-5/2", "root", "%", "\\%", "x=y", "CRON_TZ=UTC", "-", "#", "'", '"',
                     "é", "/bin/x", "1 5 a b", "SHELL=", "RANDOM_DELAY=9"]), max_size=8,
).map(" ".join)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(lines=st.lists(LINES, max_size=5), has_user=st.booleans(), seconds_first=st.booleans())
def test_no_line_makes_an_import_fall_over(lines: list[str], *, has_user: bool, seconds_first: bool) -> None:
    """Whatever a table holds."""
    text = "\n".join(lines)
    taken(crontab.read(text, "Europe/Berlin", has_user=has_user, seconds_first=seconds_first, now_ms=NOW))

"""Cases after the facts in other libraries' own test tables: what they agree on, and where raftcron's rule differs.

Each case names the project whose tests state the fact; the differences are those of docs/schedules.md.  Instants
without an offset are UTC.
"""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from raftcron.core.instant import parse_rfc3339, rfc3339
from raftcron.core.schedule import Dst, ScheduleError, parse

Case = tuple[str, str, str, str]  # text, zone, an instant, the times after it

DEFAULT = Dst()


def instant(text: str) -> int:
    when = datetime.fromisoformat(text)
    return parse_rfc3339((when if when.tzinfo else when.replace(tzinfo=UTC)).isoformat())


def check(case: Case, dst: Dst = DEFAULT) -> None:
    text, zone, start, times = case
    schedule, at, got = parse(text, zone, dst=dst), instant(start), []
    for _ in times.split():
        found = schedule.next(at)
        got.append("never" if found is None else rfc3339(found))
        at = at if found is None else found
    assert got == [each if each == "never" else rfc3339(instant(each)) for each in times.split()]


AGREED: dict[str, list[Case]] = {
    "robfig/cron, spec_test.go": [
        ("0 0/15 * * * *", "UTC", "2012-07-09T14:59:59", "2012-07-09T15:00 2012-07-09T15:15"),
        ("0 5/15 * * * *", "UTC", "2012-07-09T15:00", "2012-07-09T15:05 2012-07-09T15:20 2012-07-09T15:35"),
        ("0 20-35/15 * * * *", "UTC", "2012-07-09T23:45", "2012-07-10T00:20 2012-07-10T00:35"),
        ("15/35 20-35/15 * * * *", "UTC", "2012-07-09T23:35:51", "2012-07-10T00:20:15 2012-07-10T00:20:50"),
        ("15/35 20-35/15 1/2 */2 * *", "UTC", "2012-07-09T23:35:51", "2012-07-11T01:20:15"),
        ("15/35 20-35/15 * 9-20 Jul *", "UTC", "2012-07-09T23:35:51", "2012-07-10T00:20:15"),
        ("0 30 08 ? Jul Sun", "UTC", "2012-07-09T00:00", "2012-07-15T08:30 2012-07-22T08:30"),
        ("0 30 08 15 Jul ?", "UTC", "2012-07-09T00:00", "2012-07-15T08:30 2013-07-15T08:30"),
        ("0 0 0 9 Apr-Oct ?", "UTC", "2012-07-09T23:35", "2012-08-09 2012-09-09"),
        ("0 0 0 */5 Apr,Aug,Oct Mon", "UTC", "2012-07-09T23:35", "2012-08-06"),
        ("0 0 0 */5 Oct Mon", "UTC", "2012-07-09T23:35", "2012-10-01"),
        ("0 0 0 * Feb Mon", "UTC", "2012-07-09T23:35", "2013-02-04"),
        ("0 0 0 * Feb Mon/2", "UTC", "2012-07-09T23:35", "2013-02-01"),
        ("0 0 0 1,15 * Sun", "UTC", "2012-06-10T12:00", "2012-06-15 2012-06-17 2012-06-24 2012-07-01 2012-07-08"),
        ("0 0 0 29 Feb ?", "UTC", "2012-07-09T23:35", "2016-02-29"),
        ("0 0 0 30 Feb ?", "UTC", "2012-07-09T23:35", "never"),
        ("0 0 0 31 Apr ?", "UTC", "2012-07-09T23:35", "never"),
        ("@weekly", "UTC", "2012-07-07T01:00", "2012-07-08 2012-07-15"),
        ("@monthly", "UTC", "2012-06-08T00:00", "2012-07-01"),
        ("0 30 2 04 Nov ?", "America/New_York", "2012-11-04T00:00:00-04:00", "2012-11-04T02:30:00-05:00"),
    ],
    "hashicorp/cronexpr, cronexpr_test.go": [
        ("* * * * * * *", "UTC", "2016-02-28T23:59:59", "2016-02-29T00:00:00 2016-02-29T00:00:01"),
        ("*/5 * * * * * *", "UTC", "2012-12-31T23:59:59", "2013-01-01T00:00:00"),
        ("17-43/5 * * * *", "UTC", "2013-01-01T00:30", "2013-01-01T00:32 2013-01-01T00:37 2013-01-01T00:42"),
        ("15-30/4,55 * * * *", "UTC", "2013-01-01T00:30", "2013-01-01T00:55 2013-01-01T01:15"),
        ("0 0 * * 6,7", "UTC", "2013-01-28", "2013-02-02 2013-02-03"),
        ("0 0 * * 5-7", "UTC", "2013-01-05T12:00", "2013-01-06"),
        ("0 0 * * 5-7/2", "UTC", "2013-01-05T12:00", "2013-01-06"),
        ("0 0 * * fri-sun", "UTC", "2013-01-05T12:00", "2013-01-06"),
        ("0 0 * * 0-0", "UTC", "2013-01-08T12:00", "2013-01-13"),
        ("0 0 * * 7-7", "UTC", "2013-01-08T12:00", "2013-01-13"),
        ("0 0 * * sun-sun", "UTC", "2013-01-08T12:00", "2013-01-13"),
        ("0 0 * * 0-7", "UTC", "2013-01-08T12:00", "2013-01-09"),
        ("0 0 * * 7-1", "UTC", "2013-01-08T12:00", "2013-01-13 2013-01-14"),
        ("0 0 * * 6#5", "UTC", "2013-09-02T08:44:30", "2013-11-30 2014-03-29 2014-05-31 2014-08-30 2014-11-29"),
        ("0 0 14W * *", "UTC", "2013-03-31", "2013-04-15"),
        ("0 0 14W * *", "UTC", "2013-08-31", "2013-09-13"),
        ("0 0 30W * *", "UTC", "2013-03-02", "2013-03-29"),
        ("0 0 30W * *", "UTC", "2013-11-02", "2013-11-29"),
        ("0 0 L * *", "UTC", "2016-02-15", "2016-02-29 2016-03-31"),
        ("0 0 LW * *", "UTC", "2014-08-15", "2014-08-29"),
        ("0 0 0 1 1 * 1980", "UTC", "2013-08-31", "never"),
        ("0 0 0 1 1 * 2050", "UTC", "2013-08-31", "2050-01-01"),
        ("0 0 4 * * * 2019", "America/Los_Angeles", "2019-03-09T01:00:00-08:00",
         "2019-03-09T04:00:00-08:00 2019-03-10T04:00:00-07:00 2019-03-11T04:00:00-07:00"),
        ("0 30 * * * * 2019", "America/Los_Angeles", "2019-11-03T00:00:00-07:00",
         "2019-11-03T00:30:00-07:00 2019-11-03T01:30:00-07:00 2019-11-03T01:30:00-08:00 2019-11-03T02:30:00-08:00"),
    ],
    "HangfireIO/Cronos, CronExpressionFacts.cs": [
        ("51-4 * * * *", "UTC", "2016-12-09T18:03", "2016-12-09T18:04 2016-12-09T18:51"),
        ("56-4/4 * * * *", "UTC", "2016-12-09T17:55", "2016-12-09T17:56 2016-12-09T18:00 2016-12-09T18:04"),
        ("45-44 * * * *", "UTC", "2016-12-09T18:59", "2016-12-09T19:00 2016-12-09T19:01"),
        ("0 23-3/2 * * *", "UTC", "2016-12-09T17:30", "2016-12-09T23:00 2016-12-10T01:00 2016-12-10T03:00"),
        ("0 4/5 * * *", "UTC", "2016-12-09T00:45", "2016-12-09T04:00 2016-12-09T09:00"),
        ("0 0 20-5/5 * *", "UTC", "2017-05-19", "2017-05-20 2017-05-25 2017-05-30 2017-06-04 2017-06-20"),
        ("0 0 20-5/5 * *", "UTC", "2018-02-26", "2018-03-04"),
        ("0 0 1 9-8/3 *", "UTC", "2016-07-19", "2016-09-01 2016-12-01 2017-03-01 2017-06-01"),
        ("0 0 1 2-4,JUN,7,SEP-nov *", "UTC", "2016-11-25", "2017-02-01 2017-03-01 2017-04-01 2017-06-01"),
        ("0 0 * * tue/2", "UTC", "2016-12-09", "2016-12-10 2016-12-13 2016-12-15"),
        ("0 0 * * FRI/3", "UTC", "2016-12-03", "2016-12-09 2016-12-16"),
        ("0 0 * * */5", "UTC", "2016-12-09", "2016-12-11 2016-12-16"),
        ("0 0 ? * sat-tue/2", "UTC", "2016-12-10", "2016-12-12 2016-12-17"),
        ("0 0 * * 4-07", "UTC", "2016-12-11T12:00", "2016-12-15"),
        ("* * * L-28 * *", "UTC", "2017-02-01", "2017-03-03"),
        ("0 0 0 L-29 * *", "UTC", "2016-02-01", "2016-03-02"),
        ("0 0 0 L-30 * *", "UTC", "2016-02-01", "2016-03-01 2016-05-01"),
        ("0 0 * * SUNL", "UTC", "2017-01-01", "2017-01-29"),
        ("0 0 * * 7L", "UTC", "2016-12-31", "2017-01-29"),
        ("0 0 * * 2#5", "UTC", "2017-02-01", "2017-05-30"),
        ("0 0 1W * *", "UTC", "2016-12-31", "2017-01-02"),
        ("0 30 10 1W * *", "UTC", "2017-04-01T12:00", "2017-04-03T10:30 2017-05-01T10:30"),
        ("0 0 7W * *", "UTC", "2017-01-02", "2017-01-06 2017-02-07"),
        ("* * * * * *", "UTC", "9999-12-31T23:59:58.9", "9999-12-31T23:59:59 never"),
        # New York, 2016: 02:00 becomes 03:00 on 13 March, 02:00 becomes 01:00 on 6 November.
        ("0 */30 * * * *", "America/New_York", "2016-11-06T01:59:00-04:00",
         "2016-11-06T01:00:00-05:00 2016-11-06T01:30:00-05:00 2016-11-06T02:00:00-05:00"),
        ("*/30 0 1 * * *", "America/New_York", "2016-11-06T01:00:30-04:00",
         "2016-11-06T01:00:00-05:00 2016-11-06T01:00:30-05:00 2016-11-07T01:00:00-05:00"),
        ("0 0,30 1 * * *", "America/New_York", "2016-11-06T01:00:00-04:00",
         "2016-11-06T01:30:00-04:00 2016-11-07T01:00:00-05:00"),
        ("0 0 1 * 11 SUN#1", "America/New_York", "2015-11-01T01:00:00-05:00", "2016-11-06T01:00:00-04:00"),
        ("59 59 1 * * *", "America/New_York", "2016-11-06T01:59:59-05:00", "2016-11-07T01:59:59-05:00"),
        # Lord Howe, 2017: the clock goes back by half an hour on 2 April.
        ("0 30 * * * *", "Australia/Lord_Howe", "2017-04-02T01:30:00+11:00",
         "2017-04-02T01:30:00+10:30 2017-04-02T02:30:00+10:30"),
        ("0 0 */2 * * *", "Australia/Lord_Howe", "2017-04-02T00:30:00+11:00", "2017-04-02T02:00:00+10:30"),
    ],
    "spring-projects/spring-framework, CronExpressionTests.java": [
        ("0 0 7 ? * MON-FRI", "UTC", "2009-09-26T15:00", "2009-09-28T07:00 2009-09-29T07:00 2009-09-30T07:00"),
        ("0 30 23 30 1/3 ?", "UTC", "2010-12-30T15:00", "2011-01-30T23:30 2011-04-30T23:30 2011-07-30T23:30"),
        ("0 15 12 */10 1-8 5", "UTC", "2021-04-30T12:14:59", "2021-05-21T12:15 2021-06-11T12:15 2022-01-21T12:15"),
        ("0 0 0 L-3 * *", "UTC", "2008-01-04", "2008-01-28 2008-02-26 2008-03-28 2008-04-27"),
        ("0 0 0 LW * *", "UTC", "2008-07-31", "2008-08-29 2008-09-30 2008-10-31 2008-11-28 2008-12-31"),
        ("0 0 0 * * 5L", "UTC", "2008-01-04", "2008-01-25 2008-02-29 2008-03-28 2008-04-25 2008-05-30"),
        ("0 0 0 15W * ?", "UTC", "2020-01-01", "2020-01-15 2020-02-14 2020-03-16 2020-04-15"),
        ("0 0 0 1W * ?", "UTC", "2019-12-31", "2020-01-01 2020-02-03 2020-03-02 2020-04-01"),
        ("0 0 0 1W * ?", "UTC", "2022-01-01", "2022-01-03"),
        ("0 0 0 31 6 *", "UTC", "2021-03-10", "never"),
    ],
    "quartz-scheduler/quartz, CronExpressionTest.java": [
        ("0 15 10 * * ? 2005", "UTC", "2005-06-01T10:14", "2005-06-01T10:15 2005-06-02T10:15"),
        ("0 15 10 * * ? 2005", "UTC", "2005-12-31T10:15", "never"),
        ("0 15 10 L-2 * ? 2010", "UTC", "2010-10-01", "2010-10-29T10:15"),
        ("0 15 10 L-5W * ? 2010", "UTC", "2010-10-01", "2010-10-26T10:15"),
        ("0 15 10 L-1W * ? 2010", "UTC", "2010-10-01", "2010-10-29T10:15"),
    ],
    "cuu508/cronsim, test_cronsim.py": [
        ("1 1 1-7 * */7", "UTC", "2020-01-01", "2020-01-05T01:01 2020-02-02T01:01 2020-03-01T01:01 2020-04-05T01:01"),
        ("1 1 */100,1-7 * MON", "UTC", "2020-01-01", "2020-01-06T01:01 2020-02-03T01:01 2020-03-02T01:01"),
        ("1 1 */100 * MON#4", "UTC", "2020-01-01", "never"),
        # Riga, 2021: 03:00 becomes 04:00 on 28 March, 04:00 becomes 03:00 on 31 October.
        ("0 */3 * * *", "Europe/Riga", "2021-10-31T01:30:00+03:00",
         "2021-10-31T03:00:00+03:00 2021-10-31T03:00:00+02:00 2021-10-31T06:00:00+02:00"),
        ("0 1,2,3,4,5 * * *", "Europe/Riga", "2021-03-28T01:30:00+02:00",
         "2021-03-28T02:00:00+02:00 2021-03-28T04:00:00+03:00 2021-03-28T05:00:00+03:00"),
        ("30 1,2,3,4,5 * * *", "Europe/Riga", "2021-03-28T01:30:00+02:00",
         "2021-03-28T02:30:00+02:00 2021-03-28T04:00:00+03:00 2021-03-28T04:30:00+03:00"),
        ("30 1,2,3,4,5 * * *", "Europe/Riga", "2021-10-31T01:30:00+03:00",
         "2021-10-31T02:30:00+03:00 2021-10-31T03:30:00+03:00 2021-10-31T04:30:00+02:00"),
    ],
    "pallets-eco/croniter, test_croniter.py": [
        ("0 16 */2 * sat", "UTC", "2023-05-02", "2023-05-13T16:00 2023-05-27T16:00 2023-06-03T16:00 2023-06-17T16:00"),
        ("0 0 29-L * *", "UTC", "2015-09-04", "2015-09-29 2015-09-30 2015-10-29 2015-10-30 2015-10-31"),
        ("30 22 * * sun-thu", "UTC", "2010-08-25T15:56", "2010-08-25T22:30 2010-08-26T22:30 2010-08-29T22:30"),
        ("0 4/6 * * *", "UTC", "2012-02-24", "2012-02-24T04:00 2012-02-24T10:00 2012-02-24T16:00 2012-02-24T22:00"),
        ("00 03 16,30 * *", "UTC", "2013-02-01", "2013-02-16T03:00 2013-03-16T03:00 2013-03-30T03:00"),
        ("59 23 * 1 wed,fri,mon-thu,tue,tue", "UTC", "2021-01-01T23:59", "2021-01-04T23:59 2021-01-05T23:59"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("source", "case"), [(source, case) for source, cases in AGREED.items() for case in cases], ids=str
)
def test_what_others_agree_on(source: str, case: Case) -> None:
    """The next times are those that the project's own tests state."""
    check(case)


# What docs/schedules.md says of differences: the source, its case with raftcron's times, and what the source has.
DIFFERENT: list[tuple[str, Case, str]] = [
    ("Cronos, Spring: day-of-month and day-of-week must both match",
     ("0 0 0 13 * FRI", "UTC", "2018-07-31T11:47:14", "2018-08-03 2018-08-10 2018-08-13"), "2019-09-13"),
    ("Cronos: a list of steps or a range in hours counts as an interval, so it runs on both passes",
     ("0 0/30 1 * * *", "America/New_York", "2016-11-06T01:30:00-04:00", "2016-11-07T01:00:00-05:00"),
     "2016-11-06T01:00:00-05:00"),
    ("robfig/cron: a time in a gap does not run that day",
     ("0 30 2 11 Mar ?", "America/New_York", "2012-03-11T00:00:00-05:00",
      "2012-03-11T03:00:00-04:00 2013-03-11T02:30:00-04:00"), "2013-03-11T02:30:00-04:00"),
    ("robfig/cron: asked from inside the first pass, a time in a fold runs on its second",
     ("0 30 1 04 Nov ?", "America/New_York", "2012-11-04T01:45:00-04:00", "2013-11-04T01:30:00-05:00"),
     "2012-11-04T01:30:00-05:00"),
    ("hashicorp/cronexpr: a time in a gap does not run that day",
     ("2 2 * * *", "America/Los_Angeles", "2019-03-09T03:00:00-08:00",
      "2019-03-10T03:00:00-07:00 2019-03-11T02:02:00-07:00"), "2019-03-11T02:02:00-07:00"),
    ("hashicorp/cronexpr: a time in a fold runs twice",
     ("30 1 * * *", "America/Los_Angeles", "2019-11-03T00:00:00-07:00",
      "2019-11-03T01:30:00-07:00 2019-11-04T01:30:00-08:00"), "2019-11-03T01:30:00-08:00"),
    ("Quartz: days of the week count from 1 = Sunday",
     ("0 0 0 ? * 2", "UTC", "2026-01-01", "2026-01-06"), "2026-01-05"),
    ("croniter by itself: six fields have the seconds last",
     ("0 30 12 * * *", "UTC", "2026-01-01", "2026-01-01T12:30:00"), "2026-01-12T00:30:00"),
]  # fmt: skip


@pytest.mark.parametrize(("why", "case", "theirs"), DIFFERENT, ids=[why for why, _, _ in DIFFERENT])
def test_where_the_rule_differs(why: str, case: Case, theirs: str) -> None:
    """Here raftcron follows its own rule, which is written down; the other's answer is another one."""
    check(case)
    assert instant(theirs) not in [instant(each) for each in case[3].split()[:1]]


def test_differences_at_jumps_of_the_clock_can_be_chosen() -> None:
    """What others do at jumps is had by `dst`."""
    skip = ("2 2 * * *", "America/Los_Angeles", "2019-03-09T03:00:00-08:00", "2019-03-11T02:02:00-07:00")
    both = ("30 1 * * *", "America/Los_Angeles", "2019-11-03T00:00:00-07:00",
            "2019-11-03T01:30:00-07:00 2019-11-03T01:30:00-08:00 2019-11-04T01:30:00-08:00")  # fmt: skip
    check(skip, Dst(gap="skip"))
    check(both, Dst(fold="both"))


def _refused() -> list[str]:
    """What Cronos, cronsim, croniter and Quartz refuse too, in each field where it has no place."""
    everywhere = "-1 - 5- , ,1 / */ 1/ 1/0 1/k 1k # *#1 1##1 1//2 2/ #2"
    only = [
        "60 L W LW 5#3 */x 1-1_0 0-1& 0-10/error 0-10/",  # minute
        "24 25 10#1 LW l w",  # hour
        "0 32 10-32 31-32 MON T 4#1 W 1-2W 1/2W 1-2/2W 1LW L-31 5-100 32W",  # day-of-month
        "13 0 Foo Jan-Foo janu-jun 2#2 */2# L LW",  # month
        "8 0# 5#6 SUN#6 SUN#050 0#0 SUT SU0 SUNDAY L W LW 5L-6 5L#1 5L/3",  # day-of-week
    ]
    texts = []
    for place, words in enumerate(only):
        for wrong in (*everywhere.split(), *words.split()):
            parts = ["*"] * 5
            parts[place] = wrong
            texts += [" ".join(parts), " ".join(["0", *parts])]
    counts = [
        "",
        "*",
        "* * *",
        "* * * *",
        "* * * * * * * *",
        "/120 0 8-18 ? * 2-6",
        "0 43 9 ? * 6,7,L",
        "0 2 * * * 2019",
    ]
    return [
        *texts,
        *counts,
        "@yearly !",
        "@every x",
        *["@", "@invalid", "@yearl", "@every_hour", "@@daily", "@ydaily", "@midn", "@every"],
    ]


@pytest.mark.parametrize("text", _refused())
def test_what_others_refuse_is_refused(text: str) -> None:
    """Nonsense in any field, and names that are none, are refused; none of it is guessed at."""
    with pytest.raises(ScheduleError):
        parse(text)

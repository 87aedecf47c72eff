"""A node inside an application: its life, its handlers, the jobs that its code declares."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from raftcron.embed import LABEL, RaftCron, Run
from raftcron.errors import ConfigurationError
from tests.cluster.harness import ReservedPorts, eventually
from tests.executors import applied

Make = Callable[..., RaftCron]


@pytest.fixture
async def ports() -> AsyncIterator[list[int]]:
    reserved = ReservedPorts(2)
    yield reserved.numbers
    reserved.release()


@pytest.fixture
async def make(tmp_path: Path, ports: list[int]) -> AsyncIterator[Make]:
    """Makes a cluster of one in an application, again and again on the same data; stops what is left."""
    made: list[RaftCron] = []

    def one(**settings: Any) -> RaftCron:
        cron = RaftCron(
            "web-1", data_dir=tmp_path / "cron", http=f"127.0.0.1:{ports[0]}", raft=f"127.0.0.1:{ports[1]}", **settings
        )
        made.append(cron)
        return cron

    yield one
    for cron in made:
        await cron.stop()


@asynccontextmanager
async def api(ports: list[int]) -> AsyncIterator[Callable[..., Any]]:
    async with aiohttp.ClientSession(f"http://127.0.0.1:{ports[0]}") as session:

        async def ask(method: str, path: str, body: Any = None) -> Any:
            async with session.request(method, path, json=body) as response:
                return await response.json(content_type=None)

        yield ask


async def test_declared_jobs_run_in_the_application(make: Make, ports: list[int]) -> None:
    """Async ones on its loop, others in its threads; what is not stoppable says `continue` in its definition."""
    cron = make()
    here = asyncio.get_running_loop()
    seen: dict[str, Run] = {}

    @cron.job("@every 1s", args={"table": "a"}, labels={"team": "db"})
    async def sync_orders(run: Run) -> str:
        assert asyncio.get_running_loop() is here
        seen["async"] = run
        return "done"

    @cron.job("@every 1s", name="in.thread", timeout="5s")
    def whatever(run: Run) -> None:
        assert threading.current_thread() is not threading.main_thread()
        seen["thread"] = run

    await cron.start()
    await cron.ready()

    async def both() -> bool:
        return len(seen) == 2

    await eventually(both, within=60, what="both have run")
    assert (seen["async"].job, seen["async"].args, seen["async"].node) == ("sync_orders", {"table": "a"}, "web-1")
    async with api(ports) as ask:
        job = await ask("GET", "/v1/jobs/sync_orders")
        assert (job["owner"], job["labels"]["team"], job["isolation"]) == ("embed", "db", None)
        thread = await ask("GET", "/v1/jobs/in.thread")
        assert (thread["isolation"], thread["timeout"]) == ("continue", "5s")
        assert thread["executor"] == {"type": "python", "handler": "in.thread"}

        [member] = (await ask("GET", "/v1/cluster"))["members"]
        assert (member["handlers"], member["tags"]) == (["in.thread", "sync_orders"], {})

        async def ended() -> bool:
            runs = (await ask("GET", "/v1/jobs/sync_orders/runs"))["items"]
            return any(run["state"] == "succeeded" and run["output_tail"] == "done" for run in runs)

        await eventually(ended, within=60, what="its end is recorded with what it returned")


async def test_how_many_files_the_application_may_open_is_its_own_affair(make: Make) -> None:
    """Its node leaves the limit as it is, which `raftcron server` raises."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard - 1, hard))
    try:
        cron = make()
        await cron.start()
        await cron.ready()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard - 1, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_job_written_through_the_api_says_whether_its_handler_can_be_stopped(
    make: Make, ports: list[int]
) -> None:
    """`continue` where it is a function in a thread, as a declared job does; what is got can be put back."""
    cron = make()

    @cron.handler()
    def in_thread(run: Run) -> None:
        pass

    @cron.handler()
    async def on_loop(run: Run) -> None:
        pass

    cron.handler("apart", process=True)(applied.finish_when_asked)
    await cron.start()
    await cron.ready()
    async with api(ports) as ask:
        for handler, isolation in (("in_thread", "continue"), ("on_loop", None), ("apart", None)):
            body = {"schedule": "@manual", "executor": {"type": "python", "handler": handler}}
            job = await ask("PUT", f"/v1/jobs/{handler}", body)
            assert job["isolation"] == isolation
            for again in (body, job):
                assert await ask("PUT", f"/v1/jobs/{handler}", again) == job
        [member] = (await ask("GET", "/v1/cluster"))["members"]
        assert (member["handlers"], member["tags"]) == (["apart", "in_thread", "on_loop"], {})


async def test_a_function_that_becomes_a_coroutine_is_no_thread_any_more(make: Make, ports: list[int]) -> None:
    """The code says so, whatever the node's life before had announced when its job is written anew."""

    def in_thread(run: Run) -> None:
        pass

    async def on_loop(run: Run) -> None:
        pass

    async def life(function: Callable[[Run], Any], isolation: str | None) -> None:
        cron = make()
        cron.job("@manual", name="job")(function)
        await cron.start()
        await cron.ready()
        async with api(ports) as ask:

            async def is_so() -> bool:
                job = await ask("GET", "/v1/jobs/job")
                return "name" in job and job["isolation"] == isolation

            await eventually(is_so, within=60, what="the job is as the code says it")
        await cron.stop()

    await life(in_thread, "continue")
    await life(on_loop, None)


async def test_handlers_in_processes_are_bounded_by_the_process_slots(
    make: Make, ports: list[int], tmp_path: Path
) -> None:
    """The second waits until the first has ended; how the node tells the leader which they are is nobody's tag."""
    cron = make(process_slots=1, shutdown_grace="1s")
    cron.handler("apart", process=True)(applied.finish_when_asked)
    await cron.start()
    await cron.ready()
    async with api(ports) as ask:

        async def announced() -> bool:
            [member] = (await ask("GET", "/v1/cluster"))["members"]
            return (member["handlers"], member["tags"]) == (["apart"], {})

        await eventually(announced, within=60, what="the node shows its handler, and no tags")
        runs = []
        for name in ("first", "second"):
            executor = {"type": "python", "handler": "apart", "args": str(tmp_path / name)}
            await ask("PUT", f"/v1/jobs/{name}", {"schedule": "@manual", "executor": executor})
            runs.append((await ask("POST", f"/v1/jobs/{name}/runs", {}))["run"])
        assert [run["state"] for run in runs] == ["running", "queued"]

        async def begun(name: str) -> bool:
            return (tmp_path / name).exists()

        await eventually(lambda: begun("first"), within=60, what="the first has begun")
        assert (await ask("GET", f"/v1/runs/{runs[1]['id']}"))["state"] == "queued"
        await ask("POST", f"/v1/runs/{runs[0]['id']}/cancel")
        await eventually(lambda: begun("second"), within=60, what="the second has its slot")


async def test_code_wins_when_it_changes_and_edits_stay_until_then(make: Make, ports: list[int]) -> None:
    """The same code leaves an edit alone; another one takes its place; a job of somebody else's stays as it is."""

    async def handler(run: Run) -> None:
        pass

    async def life(schedule: str, last: str, work: Callable[[Callable[..., Any]], Any]) -> None:
        cron = make()
        for name, text in (("nightly", schedule), ("theirs", "@manual"), (last, "@manual")):  # written in this order
            cron.job(text, name=name)(handler)
        await cron.start()
        await cron.ready()
        async with api(ports) as ask:

            async def declared() -> bool:
                jobs = (await ask("GET", "/v1/jobs"))["items"]
                return {"nightly", "theirs", last} <= {job["name"] for job in jobs}

            await eventually(declared, within=60, what="the jobs are there")
            await work(ask)
        await cron.stop()

    async def edit(ask: Callable[..., Any]) -> None:
        job = await ask("PATCH", "/v1/jobs/nightly", {"schedule": "0 4 * * *"})
        assert job["schedule"] == "0 4 * * *", job
        job["labels"] = {}
        await ask("PUT", "/v1/jobs/theirs", {"schedule": "0 5 * * *", "executor": job["executor"]})

    def schedule_is(text: str) -> Callable[[Callable[..., Any]], Any]:
        async def look(ask: Callable[..., Any]) -> None:
            async def so() -> bool:
                return bool((await ask("GET", "/v1/jobs/nightly"))["schedule"] == text)

            await eventually(so, within=60, what=f"the schedule is {text}")
            theirs = await ask("GET", "/v1/jobs/theirs")
            assert (theirs["schedule"], LABEL in theirs["labels"]) == ("0 5 * * *", False)

        return look

    await life("0 3 * * *", "first", edit)
    await life("0 3 * * *", "second", schedule_is("0 4 * * *"))
    await life("0 6 * * *", "third", schedule_is("0 6 * * *"))


async def test_an_orderly_stop_gives_handlers_their_grace(make: Make, ports: list[int]) -> None:
    """A handler that ends within it succeeds; one that does not sees `shutdown` and is cancelled; both are recorded."""
    cron = make(shutdown_grace="4s")
    begun = asyncio.Event(), asyncio.Event()
    reasons: list[str] = []

    @cron.handler("quick")
    async def quick(run: Run) -> str:
        begun[0].set()
        await asyncio.sleep(0.5)
        return "whole"

    @cron.handler("slow")
    async def slow(run: Run) -> None:
        begun[1].set()
        reasons.append(await run.cancelled.wait())
        await asyncio.sleep(60)

    await cron.start()
    await cron.ready()
    async with api(ports) as ask:
        for name in ("quick", "slow"):
            body = {"schedule": "@manual", "executor": {"type": "python", "handler": name}, "kill_after": "500ms"}
            await ask("PUT", f"/v1/jobs/{name}", body)
            await ask("POST", f"/v1/jobs/{name}/runs", {})
    for event in begun:
        await event.wait()
    await cron.stop()
    assert reasons == ["shutdown"]

    again = make()
    await again.start()
    await again.ready()
    async with api(ports) as ask:
        for name, state, kind in (("quick", "succeeded", None), ("slow", "lost", "shutdown")):
            [run] = (await ask("GET", f"/v1/jobs/{name}/runs"))["items"]
            assert (run["state"], run["error_kind"]) == (state, kind), run


async def test_it_lives_as_long_as_an_aiohttp_application(make: Make, ports: list[int]) -> None:
    """`cleanup_ctx` starts it with the application and stops it after."""
    cron = make()
    application = web.Application()
    application.cleanup_ctx.append(cron.cleanup_ctx)
    runner = web.AppRunner(application)
    await runner.setup()
    assert cron.name == "web-1"
    await cron.ready()
    await runner.cleanup()
    with pytest.raises(aiohttp.ClientConnectionError):
        async with api(ports) as ask:
            await ask("GET", "/livez")
    assert cron.error is None


async def test_it_lives_as_long_as_an_asgi_lifespan(make: Make) -> None:
    """What FastAPI and Starlette do with `lifespan=`."""
    cron = make()
    async with cron.lifespan(object()):
        await cron.ready()
    with pytest.raises(RuntimeError, match="make another"):
        await cron.start()


async def test_what_cannot_work_is_said_before_anything_starts(make: Make, tmp_path: Path) -> None:
    """A wrong setting, wrong jobs with every fault, a handler that comes late, a data directory in use."""
    with pytest.raises(ConfigurationError, match=r"--lease"):
        await make(lease="1ms").start()
    with pytest.raises(ConfigurationError, match=r"--data-dir is missing"):
        await RaftCron("a").start()

    async def handler(run: Run) -> None:
        pass

    cron = make()
    cron.job("0 25 * * *", name="one", timezone="Mars/Base")(handler)
    cron.job("@manual", name="two", tiemout="5s")(handler)
    with pytest.raises(ConfigurationError) as raised:
        await cron.start()
    assert {fault.pointer for fault in raised.value.faults} >= {"/one/timezone", "/two/tiemout"}
    with pytest.raises(ValueError, match=r"give another one with name="):
        make().handler("_private")(handler)

    first, second = make(), make()
    await first.start()
    with pytest.raises(RuntimeError, match="before the node starts"):
        first.handler("late")(handler)
    with pytest.raises(ConfigurationError, match="another raftcron process has it"):
        await second.start()
    assert second.error is not None


def test_what_could_not_run_is_refused_where_it_is_registered() -> None:
    """As a handler and as a job, with what is wrong and what to do."""

    class Nightly:
        async def __call__(self, run: Run) -> None:
            pass

    def numbers(run: Run) -> Iterator[int]:
        yield run.attempt

    def two(run: Run, other: str) -> None:
        pass

    for decorate in (RaftCron().handler(), RaftCron().job("@manual")):
        with pytest.raises(ValueError, match=r"5 is not callable: register a function"):
            decorate(5)  # type: ignore[type-var]
        with pytest.raises(ValueError, match=r"numbers is a generator function, .*: return, do not yield"):
            decorate(numbers)
        with pytest.raises(ValueError, match=r"missing a required argument: 'other'; give .* a default"):
            decorate(two)  # type: ignore[type-var]
        with pytest.raises(ValueError, match=r" is not a name: .*: give another one with name="):
            decorate(Nightly())
    RaftCron().job("@manual", name="nightly")(Nightly())


async def test_a_node_that_ends_by_itself_says_why(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """The application lives on; `error` and the log tell it."""
    cron = make()
    await cron.start()
    await cron.ready()
    assert cron._node is not None and cron._node._daemon is not None
    daemon = cron._node._daemon
    assert cron._node._loop is not None
    with caplog.at_level(logging.CRITICAL):
        cron._node._loop.call_soon_threadsafe(daemon.fail, ConfigurationError("the disk is gone"))
        await asyncio.to_thread(cron._node.over.result, 60)
    assert str(cron.error) == "the disk is gone"
    assert "node_ended node=web-1" in caplog.text


async def test_an_answer_that_is_older_than_a_week_leaves_also_where_no_new_one_comes(
    make: Make, tmp_path: Path
) -> None:
    """A node looks as it starts, and again and again."""
    answers = tmp_path / "cron" / "answers"
    answers.mkdir(parents=True)
    old, young = answers / "1-2-1", answers / "1-3-1"
    for file in (old, young):
        file.write_text("said")
    os.utime(old, (time.time() - 8 * 86_400,) * 2)

    async def is_gone() -> bool:
        return not old.exists()

    await make().start()
    await eventually(is_gone, within=20, what="the old answer is gone")
    assert young.read_text() == "said"

"""The executor of docs/executors.md, brought by an installed package, in a real node."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from tests.cluster.harness import Cluster, eventually

PAGE = Path(__file__).parents[2] / "docs" / "executors.md"


def example(language: str) -> str:
    """The page's last block in that language."""
    found: list[str] = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return found[-1]


class Extended(Cluster):
    """A node with one more package on its path."""

    def environment(self, secret: str | None = None) -> dict[str, str]:
        path = os.pathsep.join(filter(None, [str(self.folder / "site"), os.environ.get("PYTHONPATH")]))
        return super().environment(secret) | {"PYTHONPATH": path}


def install(site: Path) -> None:
    """What an installer leaves of a package: its module, and metadata with the entry point that the page declares."""
    [(group, name, value)] = re.findall(r'entry-points\."(.*?)"\]\n(\w+) = "(.*)"', example("toml"))
    metadata = site / "raftcron_queue-1.0.dist-info"
    metadata.mkdir(parents=True)
    (site / "raftcron_queue.py").write_text(example("python"))
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: raftcron-queue\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{group}]\n{name} = {value}\n")


async def test_the_pages_executor_runs_in_a_real_node(tmp_path: Path) -> None:
    """Every fault of its object is named, a run of it does its work, a failure says why."""
    async with Extended(tmp_path, size=1) as cluster:
        install(tmp_path / "site")
        await cluster.start()
        answer = await cluster.request(
            "n1", "PUT", "/v1/jobs/q", body={"schedule": "@manual", "executor": {"type": "queue", "directory": 5}}
        )
        pointers = {fault["pointer"] for fault in answer.expect(422).json["errors"]}
        assert pointers == {"/executor/directory", "/executor/message"}

        async def run(directory: Path) -> Any:
            executor = {"type": "queue", "directory": str(directory), "message": "hello"}
            await cluster.put_job("n1", "q", schedule="@manual", executor=executor)
            started = (await cluster.request("n1", "POST", "/v1/jobs/q/runs", body={})).expect(202).json["run"]["id"]

            async def ended() -> Any:
                run = (await cluster.request("n1", "GET", f"/v1/runs/{started}")).expect(200).json
                return run if run["finished_at"] else None

            return await eventually(ended, within=60, what="the run has ended")

        spool = tmp_path / "spool"
        spool.mkdir()
        done = await run(spool)
        assert done["state"] == "succeeded"
        assert Path(done["output_tail"]).read_text() == "hello"
        failed = await run(tmp_path / "nowhere")
        assert (failed["state"], failed["error_kind"]) == ("failed", "disk")
        assert failed["error"].endswith("No such file or directory")

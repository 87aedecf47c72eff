"""Three real nodes over mutual TLS: they elect, write and read, and one without a certificate stays out."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.harness import Cluster, eventually
from tests.raft.certificates import Authority

NEVER = "0 0 29 2 *"


class Secured(Cluster):
    """Each node with its own certificate, but for those named in `bare`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.bare: set[str] = set()
        self.authority = Authority(folder / "ca")
        self.files = {name: self.authority.issue(name) for name in self.nodes}

    def command(self, name: str, extra: object = ()) -> list[str]:
        tls = self.files[name]
        files = ("--peer-cert", tls.certificate, "--peer-key", tls.key, "--peer-ca", tls.ca)
        return [*super().command(name), *(() if name in self.bare else map(str, files))]


async def test_a_cluster_over_mutual_tls(tmp_path: Path) -> None:
    """It takes writes through each node, lives on without its leader, and takes that back with a new certificate."""
    async with Secured(tmp_path) as cluster:
        await cluster.start()
        leader = await cluster.wait_leader()
        for name in cluster.nodes:
            await cluster.put_job(name, f"by-{name}", schedule=NEVER, executor={"type": "shell", "command": "true"})
        await cluster.kill(leader)
        successor = await cluster.wait_leader(other_than=leader)
        await cluster.put_job(successor, "after", schedule=NEVER, executor={"type": "shell", "command": "true"})
        cluster.files[leader] = cluster.authority.issue(leader, file="renewed")
        await cluster.start(leader)
        await cluster.wait_converged()
        wanted = {"after", *(f"by-{name}" for name in cluster.nodes)}
        assert {job["name"] for job in await cluster.pages(leader, "/v1/jobs")} == wanted

        cluster.bare.add(leader)  # now a follower, back without a certificate
        await cluster.stop(leader)
        cluster.spawn(leader)

        async def refused() -> bool:
            return "it speaks no TLS" in cluster.nodes[successor].output

        await eventually(refused, within=60, what="the leader says why it does not talk to the node")
        (await cluster.request(leader, "GET", "/readyz")).expect(503)
        await cluster.put_job(successor, "without", schedule=NEVER, executor={"type": "shell", "command": "true"})

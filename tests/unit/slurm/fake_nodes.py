"""The answers of a Slurm whose nodes are lost, for the tests."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class FakeNodes:
    """Job 7 on some nodes: those that Slurm still counts to it, and those that run a command."""

    kept: list[str]
    answering: list[str]
    requested: int | None = None
    """The smallest number of nodes that was asked for; None if Slurm does not say."""
    in_json: bool = False
    """Whether Slurm says that in JSON only."""
    state: str = "RUNNING"
    down: list[str] = field(default_factory=list)
    steps: str = ""
    asked: list[str] = field(default_factory=list)
    """The nodes that were asked to run a command."""
    sent: list[list[str]] = field(default_factory=list)
    """The commands that change something."""

    def __call__(self, command: Sequence[str]) -> tuple[int, str]:
        match command:
            case ["scontrol", "show", "hostnames", listed]:
                return 0, "\n".join(listed.split(",")) + "\n"
            case ["scontrol", "show", "job", *_]:
                says = (
                    ""
                    if self.requested is None or self.in_json
                    else f"ReqTRES=cpu=9,mem=8G,node={self.requested},billing=9"
                )
                return 0, f"JobId=7 NumNodes={len(self.kept)} {says} AllocTRES=cpu=9,node=9"
            case ["squeue", "--json"]:
                jobs = [{"job_id": 6, "tres_req_str": "node=9"}]
                if self.in_json:
                    jobs.append({"job_id": 7, "tres_req_str": f"cpu=9,node={self.requested},billing=9"})
                return 0, json.dumps({"jobs": jobs})
            case ["squeue", "--noheader", "--steps", *_]:
                return 0, self.steps
            case ["squeue", *options] if "%A %T %N" in options:
                return 0, f"6 RUNNING node9\n7 {self.state} {','.join(self.kept)}\n"
            case ["sinfo", *_]:
                return 0, "\n".join(self.down)
            case ["env", *rest] if "true" in rest:
                (node,) = (part.removeprefix("--nodelist=") for part in rest if part.startswith("--nodelist="))
                self.asked.append(node)
                return (0, "") if node in self.answering else (1, "Communication connection failure")
            case ["scontrol" | "scancel", *_]:
                self.sent.append(list(command))
                return 0, ""
        raise AssertionError(command)

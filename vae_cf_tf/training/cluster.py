"""The workers that the environment variable TF_CONFIG names. Needs no TensorFlow."""

import json
import os
import re
from collections.abc import Mapping
from typing import NamedTuple

from vae_cf_tf.errors import UserError

_EXAMPLE = """{"cluster": {"worker": ["host1:12345", "host2:12345"]}, "task": {"type": "worker", "index": 0}}"""
_ADDRESS = re.compile(r"[^\s:]+:\d{1,5}|\[[0-9a-fA-F:.]+\]:\d{1,5}")


class Cluster(NamedTuple):
    """The processes that train together.

    Attributes:
      addresses: host:port of each; the first is the chief's.
      rank: place of this process among them.
      kinds: "chief" or "worker", for each.
    """

    addresses: tuple[str, ...]
    rank: int
    kinds: tuple[str, ...]

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Cluster":
        """What TF_CONFIG says: workers, and a chief where it names one; else worker 0 is the chief.

        Raises:
          UserError: TF_CONFIG is missing, is no JSON of this form, or names a task that is not in it; or it has fewer
            than two workers, equal addresses, several chiefs, or tasks of other types.

        Examples:
          >>> Cluster.from_environment({"TF_CONFIG": _EXAMPLE})
          Cluster(addresses=('host1:12345', 'host2:12345'), rank=0, kinds=('worker', 'worker'))
        """
        text = environment.get("TF_CONFIG", "")
        if not text.strip():
            raise UserError(f"--distribute=multi_worker needs the environment variable TF_CONFIG, such as {_EXAMPLE}.")
        try:
            values = json.loads(text)
            jobs, kind, index = values["cluster"], values["task"]["type"], int(values["task"]["index"])
            addresses = {job: [*map(_address, jobs[job])] for job in jobs}
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"TF_CONFIG cannot be read ({error!r}). It is to look like {_EXAMPLE}.") from error
        if others := sorted(set(addresses) - {"chief", "worker"}):
            raise UserError(f"TF_CONFIG names tasks of type {others[0]!r}. --distribute=multi_worker has workers only.")
        chief, workers = addresses.get("chief", []), addresses.get("worker", [])
        everyone = [*chief, *workers]
        if len(chief) > 1 or len(everyone) < 2 or len(set(everyone)) < len(everyone):
            raise UserError(
                f"TF_CONFIG is to name two workers or more, each with an address of its own, at most one of them as "
                f"chief. Received: {', '.join(everyone) or 'none'}."
            )
        if kind not in addresses or not 0 <= index < len(addresses[kind]):
            raise UserError(
                f"TF_CONFIG says that this is task {index} of type {kind!r}, and its cluster has no such task."
            )
        kinds = ("chief",) * len(chief) + ("worker",) * len(workers)
        return cls(tuple(everyone), index + (len(chief) if kind == "worker" else 0), kinds)

    @property
    def is_chief(self) -> bool:
        return self.rank == 0

    @property
    def own_address(self) -> str:
        return self.addresses[self.rank]


def _address(text: object) -> str:
    if not isinstance(text, str) or not _ADDRESS.fullmatch(text):
        raise ValueError(f"{text!r} is no host:port")
    return text

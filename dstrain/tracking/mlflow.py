"""MLflow: a run of a tracking server, or of a database that the full package of MLflow can open."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any

from dstrain.config.secrets import mask
from dstrain.run_folder.record import Status
from dstrain.tracking.tracker import Place, Point, TrackedRun, Tracker

RUN_ID = "dstrain.run_id"
"""The tag by which a run is found again."""
MOST_METRICS, MOST_PARAMS = 1000, 100
"""MLflow's limits for one call."""
MOST_VALUE, MOST_NAME = 500, 250
"""Characters of a value and of a name."""
_REFUSED = re.compile(r"[^\w./: -]")
_USER = re.compile(r"(?<=://)[^/@]*@")
_PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "30", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3"}
"""A server that does not answer is asked again later: its client would ask for a quarter of an hour."""
_STATUS: Mapping[Status, str] = {"finished": "FINISHED", "stopped": "KILLED", "interrupted": "RUNNING"}


class MLflow(Tracker):
    """A run of MLflow with the recipe as its parameters."""

    package = "mlflow"

    def __init__(self, place: Place) -> None:
        self._place = place
        self._client: Any = None
        self._run_id = ""

    @property
    def destination(self) -> str:
        uri = self._place.uri or os.environ.get("MLFLOW_TRACKING_URI") or "default"
        return f"{_without_secrets(uri)} {self._experiment}"

    @property
    def _experiment(self) -> str:
        return self._place.project or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "Default"

    def open(self, run: TrackedRun) -> int | None:
        for variable, value in _PATIENCE.items():
            os.environ.setdefault(variable, value)
        from mlflow import MlflowClient  # optional, and takes seconds

        self._client = MlflowClient(tracking_uri=self._place.uri)
        experiment = self._find_experiment()
        found = self._client.search_runs([experiment], filter_string=f"tags.`{RUN_ID}` = '{run.id}'", max_results=1)
        opened = found[0] if found else self._client.create_run(experiment, run_name=run.name, tags={RUN_ID: run.id})
        self._run_id = opened.info.run_id
        self._client.update_run(self._run_id, status="RUNNING")
        if not opened.data.params:  # they can be set once only
            self._log_params(run.config)
        return None if found else 0

    def send(self, points: Sequence[Point]) -> None:
        there = _Steps(self._client, run_id=self._run_id)
        metrics = [each for point in points if not (point.is_unsure and there.has(point)) for each in _metrics(point)]
        for first in range(0, len(metrics), MOST_METRICS):
            self._client.log_batch(self._run_id, metrics=metrics[first : first + MOST_METRICS])

    def close(self, status: Status) -> None:
        self._client.update_run(self._run_id, status=_STATUS[status])

    def _find_experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(self._experiment)
        if found is None:
            try:
                return str(self._client.create_experiment(self._experiment))
            except MlflowException:  # another run may have been faster
                found = self._client.get_experiment_by_name(self._experiment)
                if found is None:
                    raise
        return str(found.experiment_id)

    def _log_params(self, config: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        params = [Param(plain_name(key), value[:MOST_VALUE]) for key, value in flatten(config)]
        for first in range(0, len(params), MOST_PARAMS):
            self._client.log_batch(self._run_id, params=params[first : first + MOST_PARAMS])


class _Steps:
    """Which points a run has already; asked only for those of which that is not known."""

    def __init__(self, client: Any, *, run_id: str) -> None:
        self._client, self._run_id = client, run_id
        self._known: dict[str, set[int]] = {}

    def has(self, point: Point) -> bool:
        """Whether the last of a point's numbers is there, which was sent after the others."""
        name = plain_name(list(point.values)[-1])
        if name not in self._known:
            history = self._client.get_metric_history(self._run_id, name)
            self._known[name] = {metric.step for metric in history}
        return point.step in self._known[name]


def _metrics(point: Point) -> Iterator[Any]:
    from mlflow.entities import Metric

    milliseconds = round(1000 * point.time)
    for name, value in point.values.items():
        yield Metric(plain_name(name), value, milliseconds, point.step)


def plain_name(name: str) -> str:
    """A name that MLflow accepts; one that had to be changed ends with a hash, so that it stays different from others."""
    plain = _REFUSED.sub("_", name)
    if plain == name and len(name) <= MOST_NAME:
        return name
    return f"{plain[: MOST_NAME - 9]}-{sha256(name.encode()).hexdigest()[:8]}"


def flatten(values: Mapping[str, Any], *, before: str = "") -> Iterator[tuple[str, str]]:
    """Dotted keys of nested sections with their values as texts."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, before=f"{before}{key}.")
        else:
            yield f"{before}{key}", str(value)


def _without_secrets(uri: str) -> str:
    """The address without a user and a password, which have no place in the run folder."""
    return mask(_USER.sub("", uri))

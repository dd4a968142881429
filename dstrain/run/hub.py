"""Asks the Hub for what a recipe names before anything is loaded: one request each, and none again if there is no network.

Libraries would retry every file for half a minute, and end with a traceback that names neither the key nor the model.
"""

import logging
import os
from collections.abc import Callable

from huggingface_hub import HfApi, constants, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from dstrain.cluster.process_group import Ranks
from dstrain.config.schema import RunConfig
from dstrain.errors import UserError

TIMEOUT_SECONDS = 10.0

log = logging.getLogger(__name__)


def check_hub(config: RunConfig, *, ranks: Ranks) -> None:
    """Check that the Hub has the model and the data sets that a recipe names; a collective call, rank 0 asks for all.

    Without a network no rank asks again: it takes what is in the local cache. Raises UserError for a name or revision that the
    Hub does not have, and for a model that is not in the cache if the Hub cannot be reached.
    """
    if ranks.rank == 0:
        _check_names(config)
    if ranks.broadcast(constants.is_offline_mode(), bool):
        _go_offline()


def _check_names(config: RunConfig) -> None:
    if config.model.name is not None:
        check_model_name(config.model.name, revision=config.model.revision, key="model.name")
    for side, sources in (("train", config.data.train), ("eval", config.data.eval)):
        for number, source in enumerate(sources):
            if source.hub is not None:
                _ask(HfApi().dataset_info, source.hub, revision=source.revision, key=f"data.{side}.{number}.hub")


def check_model_name(name: str, *, revision: str | None, key: str) -> None:
    """As `check_hub`, for one model; a local folder is not looked at."""
    if os.path.isdir(name):
        return
    reason = _ask(HfApi().model_info, name, revision=revision, key=key)
    if reason is None:
        return
    if not isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str):
        raise UserError(
            f"{key}: `{name}` is not a folder here and not in the local cache, and {reason}: correct the name, or download the "
            "model where there is a network"
        )
    log.warning("%s: `%s` is taken from the local cache, because %s", key, name, reason)


def _ask(request: Callable[..., object], name: str, *, revision: str | None, key: str) -> str | None:
    """Why the Hub could not be asked, or None if it has the name; raises UserError if it has not."""
    if constants.is_offline_mode():
        return "HF_HUB_OFFLINE=1 forbids the network"
    try:
        request(name, revision=revision, timeout=TIMEOUT_SECONDS)
    except HFValidationError as error:
        raise UserError(f"{key}: `{name}` is neither a folder here nor a name of the Hub ({_line(error)})") from error
    except GatedRepoError as error:
        raise UserError(
            f"{key}: the Hub gives `{name}` to some users only: ask for access there, then `hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise UserError(f"{key}: the Hub's `{name}` has no revision `{revision}`: correct the revision") from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"{key}: the Hub has no `{name}`, and there is no such folder here: correct the name; a private one needs "
            "`hf auth login`"
        ) from error
    except Exception as error:  # the classes of the HTTP library, which huggingface_hub has changed before
        _go_offline()
        problem = "answers with an error" if isinstance(error, HfHubHTTPError) else "cannot be reached"
        return f"the Hub {problem} ({_line(error)})"
    return None


def _go_offline() -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"  # read by libraries that are not imported yet
    constants.HF_HUB_OFFLINE = True


def _line(error: Exception) -> str:
    """The beginning of a library's message, without its line breaks."""
    return str(error).strip().split("\n")[0].rstrip(" .:")

"""Sends a model to the Hugging Face Hub: one commit, and what has arrived before an interruption is not sent again.

Large files go first, each stored there under the hash of its content; the commit names them. Until the commit nothing is visible,
and a second call asks which are there. Tokens come from HF_TOKEN or `hf auth login`, by huggingface_hub alone.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from json import JSONDecodeError

from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from dstrain.cluster.console import cleaned
from dstrain.errors import UserError
from dstrain.sharing.push import Push

WAYS_OUT = {
    400: "correct what it names",
    401: "the token is missing, wrong or expired: `hf auth login`, or set HF_TOKEN to a valid one",
    402: "its storage is used up: free some there, or pay for more",
    403: "the token may not write there: take one with write access, or a name whose owner you are",
    404: "it has no such repository or branch that the token may see: correct the name, or take another token",
    409: "somebody else changed it at the same time, or the name is taken: push again, or take another name",
    413: "a file or the commit is too large for it",
    429: "too many requests: wait some minutes and push again",
}
AGAIN = "push again later: what has arrived is not sent again"


def check_access() -> None:
    """Raise UserError where the network is forbidden or there is no token, before anything is done."""
    if constants.is_offline_mode():
        raise UserError("HF_HUB_OFFLINE=1 forbids the network: unset it; --dry-run shows without it what would go up")
    if get_token() is None:
        raise UserError("there is no token for the Hub: `hf auth login`, or set HF_TOKEN; it must be allowed to write")


def send(push: Push, *, report: Callable[[str], None]) -> str:
    """Send a model, in one commit; returns the address of the commit, or of the newest one if nothing has changed.

    Raises:
        UserError: the Hub refuses it or cannot be reached, or the run has replaced the model meanwhile.
    """
    api, name = HfApi(), push.repo
    with _explained(name):
        report(_make_repository(api, push))
        if push.branch is not None:
            api.create_branch(name, branch=push.branch, exist_ok=True)
        before = api.model_info(name, revision=push.branch).sha
        operations = [CommitOperationAdd(path, content) for path, content in push.contents.files.items()]
        api.preupload_lfs_files(name, additions=operations, revision=push.branch, free_memory=False)
        _refuse_changed(push)
        step = "" if push.step is None else f", step {push.step}"
        message = f"Upload {push.folder.name}{step}, trained with dstrain"
        commit = api.create_commit(name, operations, commit_message=message, revision=push.branch)
    if commit.oid == before:
        report("nothing has changed since the last push: there is no new commit")
    return str(commit.commit_url)


def _make_repository(api: HfApi, push: Push) -> str:
    """Create the repository unless it exists; says which, and who can see it."""
    try:
        is_private = bool(api.model_info(push.repo).private)
    except RepositoryNotFoundError:
        api.create_repo(push.repo, private=push.private)
        return f"{push.repo} is new, and {'private' if push.private else 'public'}"
    if push.private and not is_private:
        raise UserError(
            f"{push.repo} exists already and is public: make it private in its settings on the Hub, take another name, or leave "
            "out --private"
        )
    return f"{push.repo} exists already, and is {'private' if is_private else 'public'}"


def _refuse_changed(push: Push) -> None:
    if not push.is_unchanged():
        raise UserError(
            f"{push.folder} was replaced while it was sent, and nothing is visible on the Hub yet: push again"
        )


@contextmanager
def _explained(repo: str) -> Iterator[None]:
    """Raises what goes wrong on the way to the Hub as a UserError with the way out."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} vanished while it was sent: push again") from error
    except Exception as error:  # the classes of the HTTP library and of Xet, which huggingface_hub has changed before
        raise UserError(explain(error, repo=repo)) from error


def explain(error: BaseException, *, repo: str) -> str:
    """What an error of huggingface_hub means and what to do, in a line; the status may be that of an error behind it."""
    if isinstance(error, ValueError) and not isinstance(
        error, JSONDecodeError
    ):  # such as metadata that the Hub refuses
        return f"the Hub refuses {repo} ({_line(error)}): correct it and push again"
    found: BaseException | None = error
    while found is not None and not isinstance(found, HfHubHTTPError):
        found = found.__cause__ or found.__context__
    if found is None:
        return f"the Hub cannot be reached, or the way to it broke off ({_line(error)}): {AGAIN}"
    status = found.response.status_code
    message = (found.server_message or "").strip()
    said = f" ({cleaned(message.splitlines()[0])})" if message else ""
    if status >= 500:
        return f"the Hub failed with {status}{said}: {AGAIN}"
    return f"the Hub refuses {repo} with {status}{said}: {WAYS_OUT.get(status, AGAIN)}"


def _line(error: BaseException) -> str:
    """The message of an error on one line, or the name of its class."""
    return cleaned(" ".join(str(error).split())[:300].rstrip(" .:")) or type(error).__name__

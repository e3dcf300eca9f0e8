"""The border to Ray: a cluster joined or made, and what its errors mean."""

from types import ModuleType

from mathlete.errors import UserError
from mathlete.signals import keep_handlers
from mathlete.text import quote


def join_cluster(address: str | None, *, flag: str = "--ray.address") -> ModuleType:
    """Return the ray package, joined to the cluster at the address, or to one made here for this process.

    Raises:
        UserError: ray is missing, or the cluster cannot be reached or made; the cure names the flag.
    """
    try:
        import ray
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "ray":
            raise UserError("a Ray cluster needs the ray package", cure="pip install 'mathlete[ray]'") from error
        cure = "install one that `python -c 'import ray'` takes"
        raise UserError("the ray package must be fit for this machine", value=describe(error), cure=cure) from error

    try:
        with keep_handlers():  # Ray's own ends the process at a SIGTERM
            if address is None:
                # Ray gives its workers a low priority, but here they do all the work.
                ray.init(include_dashboard=False, logging_level="ERROR", _system_config={"worker_niceness": 0})
            else:
                ray.init(address=address, logging_level="ERROR")
    except (Exception, SystemExit) as error:
        if address is None:
            rule, cure = "a Ray cluster must start on this machine", "look into the log in /tmp/ray/session_latest/logs"
            raise UserError(rule, value=describe(error), cure=cure) from error
        raise UserError(
            "the Ray cluster must be reachable",
            value=f"{address} ({describe(error)})",
            cure=f"start one with `ray start --head`, or leave {flag} out",
        ) from error
    package: ModuleType = ray
    return package


def find_cause(error: Exception) -> Exception:
    """Return what a worker has raised, where Ray has kept it; else the error itself."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, Exception) else error


def is_death(error: Exception, errors: ModuleType) -> bool:
    """Return whether an error says that a worker, or what it gave, is gone: no fault of the sample's."""
    gone = (errors.RayActorError, errors.WorkerCrashedError, errors.NodeDiedError, errors.ObjectLostError)
    return isinstance(error, gone)


def describe(error: BaseException) -> str:
    """Return an error's kind and words; of a worker's traceback, which Ray makes words of, the last line."""
    words = str(error).strip()
    if '  File "' in words:
        words = words.splitlines()[-1]
    return f"{type(error).__name__}: {quote(words)}" if words else type(error).__name__

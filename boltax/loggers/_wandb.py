"""The Weights & Biases logger; with neither account nor network it records offline."""

import html
import logging
import netrc
import os
from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import urlsplit

from boltax._base._optional import import_optional
from boltax.loggers._base import Logger
from boltax.loggers._files import recall, remember
from boltax.loggers._images import as_images, figure_array
from boltax.loggers._values import flatten, histogram, scalars

_ID_FILE = "wandb_run_id.txt"
_EXIT_CODES = {"success": 0, "failed": 1, "interrupted": 255}  # the last as W&B's for Ctrl-C
_log = logging.getLogger("boltax")


class WandbLogger(Logger):
    """Writes to a W&B run, which starts at the first write.

    Where no login is configured and ``WANDB_MODE`` is not set, the run is recorded offline, and a
    message says how to upload it. A run that you started yourself with ``wandb.init`` is used, and
    left open at the end. Metrics are drawn over ``step``; as W&B's own step only counts the
    writes, a value may arrive late. A resumed run goes on in the W&B run whose id is in
    ``wandb_run_id.txt``; W&B takes nothing back, so what was recorded after that step stays, and is
    recorded again.

    Args:
        log_dir: the folder of the run; W&B makes ``wandb/`` in it.
        project: the project, or None for W&B's default.
        run_name: the name of the run, or None for one that W&B thinks of.
    """

    name = "wandb"
    _own: ClassVar[set[str]] = set()  # ids of the unfinished runs that loggers started
    _notices: ClassVar[set[str]] = set()  # what was said in this process

    def __init__(
        self,
        log_dir: str | os.PathLike[str],
        project: str | None = None,
        run_name: str | None = None,
    ) -> None:
        self._folder = os.fspath(log_dir)
        self.log_dir = self._folder
        self._project = project
        self._run_name = run_name
        self._run: Any = None
        self._id: str | None = None  # of the run that was started first, to go on with it
        self._is_resumed = False

    @property
    def experiment(self) -> Any:
        """The W&B run; asking for it starts it."""
        if self._run is None:
            self._run = self._user_run() or self._start()
        return self._run

    def resume(self, step: int) -> None:
        """Has a run of an earlier process go on; offline, W&B can only start a further one."""
        self._is_resumed = self._id is None

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Writes the scalars."""
        if values := scalars(metrics):
            self._put(dict(values), step)

    def log_hyperparams(self, params: Mapping[str, Any]) -> None:
        """Adds to the run's config."""
        self.experiment.config.update(flatten(params), allow_val_change=True)

    def log_image(self, key: str, images: Any, step: int | None = None) -> None:
        """Writes a panel with each image of the batch."""
        show = _wandb().Image
        self._put({key: [show(image) for image in as_images(images)]}, step)

    def log_figure(self, key: str, figure: Any, step: int | None = None) -> None:
        """Writes the figure as an image."""
        self._put({key: _wandb().Image(figure_array(figure))}, step)

    def log_histogram(self, key: str, values: Any, step: int | None = None) -> None:
        """Writes a histogram; nothing when no value is finite."""
        if (counted := histogram(values)) is not None:
            bins = (counted.counts, counted.edges)
            self._put({key: _wandb().Histogram(np_histogram=bins)}, step)

    def log_text(self, key: str, text: str, step: int | None = None) -> None:
        """Writes text with its spaces and line breaks as they are."""
        page = f"<pre>{html.escape(text)}</pre>"
        self._put({key: _wandb().Html(page, inject=False)}, step)

    def finalize(self, status: str = "success") -> None:
        """Finishes the run, unless it is the user's own.

        W&B's service process is shared by all runs of the process and ends with it.
        """
        run, self._run = self._run, None
        if run is not None and run.id in self._own:
            self._own.discard(run.id)
            run.finish(exit_code=_EXIT_CODES.get(status, 1))

    def _put(self, values: dict[str, Any], step: int | None) -> None:
        self.experiment.log(values if step is None else values | {"step": int(step)})

    def _user_run(self) -> Any:
        run = _wandb().run
        return None if run is None or run.id in self._own else run

    def _start(self) -> Any:
        wandb = _wandb()
        os.makedirs(self._folder, exist_ok=True)
        offline = "WANDB_MODE" not in os.environ and not _has_login(wandb)
        mode = "offline" if offline else os.environ.get("WANDB_MODE") or wandb.setup().settings.mode
        is_online = mode not in ("offline", "disabled", "dryrun")
        if self._is_resumed:
            self._id = recall(self._folder, _ID_FILE) if is_online else None
        run = wandb.init(
            project=self._project,
            name=self._run_name,
            dir=self._folder,
            id=self._id,
            mode="offline" if offline else None,
            resume="allow" if self._id is not None and is_online else None,
            # `wandb.run` is one run only, and that of another trainer must not be taken for ours
            reinit="create_new" if self._own else "default",
            settings=wandb.Settings(silent=True) if offline else None,
        )
        self._own.add(run.id)
        self._id = run.id
        if is_online:
            remember(self._folder, _ID_FILE, run.id)
        elif self._is_resumed and mode != "disabled":
            _log.warning("W&B goes on with a run only online: this is a further one, %s.", run.id)
        self._is_resumed = False
        run.define_metric("step", hidden=True)
        run.define_metric("*", step_metric="step", step_sync=True)
        if offline:
            self._say_offline(os.path.dirname(run.dir))
        return run

    def _say_offline(self, folder: str) -> None:
        if "offline" not in self._notices:
            self._notices.add("offline")
            _log.warning(
                "No W&B login was found, so runs are recorded offline. This one is uploaded by: "
                "wandb sync %s",
                folder,
            )


def _wandb() -> Any:
    return import_optional("wandb", extra="wandb", purpose="the W&B logger")


def _has_login(wandb: Any) -> bool:
    """Whether W&B would find credentials, or was told by its own settings not to look for any."""
    if {"WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"} & os.environ.keys():
        return True
    settings = wandb.setup().settings
    if getattr(settings, "api_key", None) or settings.mode != "online":
        return True
    return _netrc_knows(urlsplit(settings.base_url).netloc)


def _netrc_knows(host: str) -> bool:
    names = ("~/.netrc", "~/_netrc")
    paths = [os.environ["NETRC"]] if "NETRC" in os.environ else names
    for path in map(os.path.expanduser, paths):
        try:
            return netrc.netrc(path).authenticators(host) is not None
        except (OSError, netrc.NetrcParseError):
            continue
    return False

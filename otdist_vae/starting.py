"""The first thing that a run writes: its configuration, and what it goes on from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.callbacks import Callback

from . import _storage, staging
from ._storage import CHECKPOINT, CONFIG


class Start(Callback):
    """Writes the configuration once Lightning is about to train, when nothing can be refused any more."""

    def __init__(self, target: Path, config: dict[str, Any], checkpoint: Path | None, fresh: bool) -> None:
        self.target, self.checkpoint, self.fresh = target, checkpoint, fresh
        self.existed, path = target.exists(), target / CONFIG
        self.before = path.read_bytes() if path.is_file() else None  # the configuration of what was begun there
        self.text = yaml.safe_dump(json.loads(json.dumps(config)), sort_keys=False, allow_unicode=True).encode()

    def setup(self, trainer: Any, module: Any, stage: str) -> None:
        if not trainer.is_global_zero:
            return
        own = self.target / CHECKPOINT
        if self.fresh and self.target.name == staging.UNFINISHED:
            staging.discard(self.target.parent)
            self.target.mkdir()
            self.existed, self.before = False, None
        if self.checkpoint is not None and self.checkpoint != own:
            _storage.write_atomically(own, self.checkpoint.read_bytes())
        _storage.write_atomically(self.target / CONFIG, self.text)

    def undo(self) -> None:
        """The configuration as before; what was made without a checkpoint is gone."""
        path = self.target / CONFIG
        if (self.target / CHECKPOINT).exists() or self.before is not None:
            if self.before is not None and path.read_bytes() != self.before:
                _storage.write_atomically(path, self.before)
        elif not self.existed:
            shutil.rmtree(self.target, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

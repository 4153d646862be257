"""Captions encoded once by a text encoder of the package transformers, and kept on the disk.

Defines Encodings: from captions to rows of numbers, one for each token. The results lie in one
SQLite file for each encoder below data/cache, by a hash of the caption, in half precision.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

_BATCH = 64  # captions that are encoded at a time
CACHE = Path("data/cache/text")
_INSTALL = "pip install ddpm_lightning[text]"


class Encodings:
    """The last hidden states of an encoder's tokens, without padding.

    Args:
        model, revision: of huggingface.co; or a folder, whatever the revision.
        width: numbers for each token.
        max_tokens: of a caption; further ones are left out.

    The encoder is looked for when the first caption is encoded, or asked for. It is a ValueError,
    in one line, if transformers is missing, has no text encoder there, or one of another width.
    """

    def __init__(self, model: str, revision: str, width: int, max_tokens: int) -> None:
        self.model, self.revision = model, revision
        self.width, self.max_tokens = width, max_tokens
        self.directory = CACHE.absolute()

    @cached_property
    def path(self) -> Path:
        """The file with the results."""
        config = _config(self.model, self.revision)
        if config.hidden_size != self.width:
            raise ValueError(
                f"{self.model} has {config.hidden_size} numbers for each token, not {self.width}; "
                f"set condition.caption.width={config.hidden_size}"
            )
        identity = json.dumps([_version(self.model, self.revision, config), self.max_tokens])
        digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
        return self.directory / f"{Path(self.model).name}-{digest}.sqlite"

    def add(self, captions: Iterable[str], device: torch.device) -> None:
        """Encode the captions that are not there yet, on the device, and keep the results."""
        with self._database() as database:
            new = [c for c in dict.fromkeys(captions) if _rows(database, c) is None]
        for first in range(0, len(new), _BATCH):
            batch = new[first : first + _BATCH]
            encoded = zip(batch, self._encoded(batch, device), strict=True)
            rows = [(_key(caption), data.tobytes()) for caption, data in encoded]
            with self._database() as database:
                database.executemany("INSERT OR REPLACE INTO captions VALUES (?, ?)", rows)

    def get(self, captions: Sequence[str], device: torch.device) -> dict[str, np.ndarray]:
        """Return (n, width) float16 for each caption, n >= 0; encode those that are not there."""
        self.add(captions, device)
        encoded = {}
        with self._database() as database:
            for caption in captions:
                rows = _rows(database, caption) or b""
                encoded[caption] = np.frombuffer(rows, np.float16).reshape(-1, self.width)
        return encoded

    def _encoded(self, captions: Sequence[str], device: torch.device) -> Iterator[np.ndarray]:
        tokenizer, encoder = _loaded(self.model, self.revision)
        plain = [c.encode("utf-8", "replace").decode() for c in captions]  # no lone surrogates
        tokens = tokenizer(
            plain, truncation=True, max_length=self.max_tokens, padding=True, return_tensors="pt"
        )
        with torch.no_grad():
            states = encoder.to(device)(
                input_ids=tokens["input_ids"].to(device),
                attention_mask=tokens["attention_mask"].to(device),
            ).last_hidden_state
        for rows, mask in zip(states.half().cpu().numpy(), tokens["attention_mask"], strict=True):
            yield rows[mask.bool().numpy()]

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with closing(sqlite3.connect(self.path, timeout=60)) as database, database:
                database.execute(
                    "CREATE TABLE IF NOT EXISTS captions (key BLOB PRIMARY KEY, rows BLOB NOT NULL)"
                )
                yield database
        except sqlite3.Error as error:
            raise ValueError(
                f"{self.path} cannot be used: {error}; delete it, and captions are encoded anew"
            ) from error


def _rows(database: sqlite3.Connection, caption: str) -> bytes | None:
    query = "SELECT rows FROM captions WHERE key = ?"
    rows: list[tuple[bytes]] = database.execute(query, (_key(caption),)).fetchall()
    return rows[0][0] if rows else None


def _key(caption: str) -> bytes:
    return hashlib.sha256(caption.encode("utf-8", "surrogatepass")).digest()


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ValueError(
            f"condition/text=transformers needs the package transformers: {_INSTALL}; or "
            "condition/text=words, which needs none"
        ) from error
    return transformers


@lru_cache(maxsize=4)
def _config(model: str, revision: str) -> Any:
    transformers = _transformers()
    try:
        config = transformers.AutoConfig.from_pretrained(model, revision=revision)
        return config.get_text_config()
    except (OSError, ValueError) as error:
        raise ValueError(
            f"no text encoder {model} (revision {revision}): {' '.join(str(error).split())[:200]}; "
            "give a model of huggingface.co, or a folder that holds one"
        ) from error


def _version(model: str, revision: str, config: Any) -> list[Any]:
    """Return what tells an encoder from others: its commit, or the states of its files."""
    if not Path(model).is_dir():
        return [model, getattr(config, "_commit_hash", None) or revision]
    files = sorted(path for path in Path(model).iterdir() if path.is_file())
    return [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files]


@lru_cache(maxsize=1)  # shared by all that ask, such as averages; no part of a checkpoint
def _loaded(model: str, revision: str) -> tuple[Any, Any]:
    transformers = _transformers()
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(model, revision=revision)
        encoder = transformers.AutoModelForTextEncoding.from_pretrained(
            model, revision=revision, config=_config(model, revision), dtype=torch.float32
        )
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{model} cannot encode captions: {' '.join(str(error).split())[:200]}"
        ) from error
    return tokenizer, encoder.eval().requires_grad_(False)

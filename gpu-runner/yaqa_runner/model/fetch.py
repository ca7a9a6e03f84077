"""Brings a source to this machine: a folder as it stands, or the Hub's read side."""

from __future__ import annotations

import logging
from pathlib import Path

from yaqa_runner.machine.exhaustion import is_disk_full
from yaqa_runner.model.source_files import SOURCE_PATTERNS
from yaqa_runner.protocol.failures import RunnerFailure, SourceRefused, as_failure

logger = logging.getLogger(__name__)


def fetch_snapshot(
    repo: str,
    revision: str | None,
    path: str | None,
    token: str | bool | None = None,
    patterns: tuple[str, ...] = SOURCE_PATTERNS,
) -> tuple[Path, str | None]:
    """The snapshot's folder, and the commit it is of where the Hub said so.

    ``token`` is the one to read with: ``None`` for the surroundings' own, ``False`` for none at all.
    Only ``patterns`` are downloaded: configs, safetensors, tokenizer, card and licence files.

    Raises:
        SourceRefused: the repo or revision does not exist, is gated without access, or the Hub cannot be reached.
        RunnerFailure: the disk is full.
    """
    if path is not None:
        return Path(path), revision
    # Imported late: a job with a folder needs no Hub client.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        folder = Path(snapshot_download(repo, revision=revision, allow_patterns=list(patterns), token=token))
    except GatedRepoError as error:
        raise SourceRefused(
            f"{repo} is gated and this token has no access.", "Accept its terms with the token's account."
        ) from error
    except RepositoryNotFoundError as error:
        raise SourceRefused(f"{repo} does not exist or is private.", "Check the name and the read token.") from error
    except RevisionNotFoundError as error:
        raise SourceRefused(f"{repo} has no revision {revision}.", "Check the revision.") from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        if is_disk_full(error):
            raise as_failure(error) from error
        logger.exception("download of %s failed", repo)
        raise RunnerFailure(
            "source-refused",
            f"{repo} cannot be downloaded: {type(error).__name__}.",
            "Check the network, the Hub's address (HF_ENDPOINT) and the name.",
        ) from error
    return folder, folder.name if folder.parent.name == "snapshots" else revision

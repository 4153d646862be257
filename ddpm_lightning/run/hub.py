"""export.py push=ORG/NAME: a folder becomes a repository of huggingface.co.

What is uploaded lies in the folder first, so that it can be read, and be uploaded by hand.
"""

import os
from pathlib import Path

from ddpm_lightning.run.errors import RunFailed, UserError


def check_repository(repository: str) -> None:
    """Raise UserError for a name that no repository has, and where huggingface_hub is missing."""
    try:
        from huggingface_hub.utils import validate_repo_id
    except ImportError as error:
        raise UserError(
            f"push={repository} needs huggingface_hub ({error}); pip install 'ddpm_lightning[hub]'"
        ) from error
    try:
        validate_repo_id(repository)
        if repository.count("/") != 1:
            raise ValueError("it has to be ORG/NAME")
    except ValueError as error:
        raise UserError(f"push={repository} names no repository: {error}") from error


def push(folder: Path, repository: str) -> str:
    """Upload all files of a folder, and return the address of the repository: a new one is private.

    The login is what `hf auth login` has left.

    Raises:
        RunFailed: in one line, where the hub does not take it.
    """
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        address = str(api.create_repo(repository, private=True, exist_ok=True))
        api.upload_folder(
            repo_id=repository, folder_path=folder, commit_message="From ddpm_lightning's export.py"
        )
    except Exception as error:  # what its HTTP client raises is part of no contract
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RunFailed(
            f"{repository} could not be pushed: {reason:.200}; all is ready for: "
            f"hf upload --private {repository} {os.path.relpath(folder)}"
        ) from error
    return address

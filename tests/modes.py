"""Modes of files and folders, compared with the umask."""

import stat
from pathlib import Path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def odd_modes(folder: Path, umask: int) -> dict[str, str]:
    """Mode by path of all entries below the folder whose mode is not 0666 (folders: 0777) less the umask."""
    usual = {path: (0o777 if path.is_dir() else 0o666) & ~umask for path in folder.rglob("*")}
    return {str(path.relative_to(folder)): oct(mode(path)) for path in usual if mode(path) != usual[path]}

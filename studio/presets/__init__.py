"""Complete, commented specs to list, copy and edit, one YAML file each. Not here: what one may hold (studio.specs)."""

from studio.errors import StudioError, unknown
from studio.home import SHIPPED_PRESETS


def names() -> list[str]:
    """The presets that exist, sorted."""
    return sorted(path.stem for path in SHIPPED_PRESETS.glob("*.yaml"))


def described() -> dict[str, str]:
    """What each preset is for, by name: the first line of its file."""
    return {name: text(name).partition("\n")[0].removeprefix("#").strip() for name in names()}


def text(name: str) -> str:
    """A preset's YAML, comments and all. Raises: StudioError: there is none of this name."""
    if name not in names():
        raise StudioError(unknown("preset", name, names()))
    return (SHIPPED_PRESETS / f"{name}.yaml").read_text(encoding="utf-8")

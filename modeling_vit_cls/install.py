"""How this package is installed, said in one place: from its repository, never by a name that others could take.

The repository's address is `Repository` of [project.urls] in pyproject.toml, which its maintainer sets.
"""

from importlib.metadata import PackageNotFoundError, metadata


def repository() -> str | None:
    """Address of the repository, None while nobody has set it."""
    try:
        urls = metadata("vit-cls").get_all("Project-URL") or []
    except PackageNotFoundError:  # it is imported from a folder and not installed
        return None
    named = dict(url.split(", ", 1) for url in urls)
    return named.get("Repository")


def how_to_install(extra: str = "") -> str:
    """The command that installs the package, with an extra, in Markdown; and where it is to be run."""
    name, url = f"[{extra}]" if extra else "", repository()
    if url is None:
        where = f"'.{name}'" if extra else "."
        return f"`pip install {where}` in a clone of the repository of vit-cls"
    return f"`pip install 'vit-cls{name} @ git+{url}'`"


def needs(package: str, purpose: str, extra: str) -> ImportError:
    """The error where a package of an extra is missing; `purpose` as "to draw pictures"."""
    return ImportError(f"{package} is needed {purpose}: {how_to_install(extra)}")

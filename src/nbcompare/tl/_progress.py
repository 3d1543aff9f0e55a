from __future__ import annotations

from typing import Any


def bar(what: str, unit: str, total: int, *, done: int = 0, shown: bool = True) -> Any:
    """A progress bar, to be used with `with`, that hides where it is not to be shown."""
    if shown:
        from tqdm.auto import tqdm  # in a notebook without ipywidgets it warns
    else:
        from tqdm.std import tqdm

    return tqdm(desc=what, unit=f" {unit}", total=total, initial=done, disable=not shown, unit_scale=True)

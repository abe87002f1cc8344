"""All sections of a config with their meanings, as `--help` shows them."""

from collections.abc import Mapping
from typing import Any

from jaxfair.cli.fields import OPEN, REQUIRED, Field, Section, meanings, section_of

__all__ = ["EXTRACTOR", "all_sections"]

EXTRACTOR = "extractor_"
"""A Method's fields that begin so may stand in the section `extractor`, without it."""

_OF_THE_DATA = {"labels": "the data's", "attributes": "those of data.groups"}
"""Fields of a Method that are filled in from the data."""

Tree = Mapping[str, Any]


def all_sections(
    top: type, plain: Tree, sections: Mapping[str, type], methods: Mapping[str, type], tree: Any
) -> list[Section]:
    """Returns every section, from the top to the last.

    Args:
      top: the class whose docstring says what `plain` are.
      plain: name -> type of the fields that stand in no section.
      sections: name -> config class.
      methods: name -> config class of the section `method`.
      tree: a config as a dict: its values are shown, and its method alone; None shows the
        defaults, and all methods.
    """
    said = meanings(top)
    values = {name: REQUIRED if tree is None else f"{tree.get(name)}" for name in plain}
    fields = [Field(name, values[name], said[name]) for name in plain]
    found = [Section("", "the top of a config file", tuple(fields))]
    chosen = None if tree is None else (_part(tree, "method") or {}).get("name")
    for name, cls in methods.items():
        if tree is None or name == chosen:
            found += _method(cls, name, ", ".join(methods), tree)
    return found + [
        part for n, cls in sections.items() for part in section_of(cls, n, _part(tree, n))
    ]


def _method(cls: type, name: str, known: str, tree: Tree | None) -> list[Section]:
    """The fields of one method; those of its frozen features stand by themselves."""
    made = section_of(cls, "method", _part(tree, "method"))[0]
    head = Field("name", name, f"{made.summary} Methods are {known}.")
    own = [field for field in made.fields if not field.name.startswith(EXTRACTOR)]
    for place, field in enumerate(own):
        if field.name in _OF_THE_DATA and field.value.startswith(REQUIRED):
            meaning = f"{field.meaning} Else {_OF_THE_DATA[field.name]}."
            own[place] = field._replace(value=OPEN, meaning=meaning)
    found = [Section("method", f"the method {name!r}", (head, *own))]
    if len(own) < len(made.fields):
        apart = section_of(cls, "extractor", _part(tree, "extractor"), prefix=EXTRACTOR)[0]
        found.append(apart._replace(summary=f"the frozen features of {name!r}"))
    return found


def _part(tree: Tree | None, name: str) -> Tree | None:
    """A section's values; {} where a config lacks it, None without a config."""
    part = {} if tree is None else tree.get(name)
    return None if tree is None else part if isinstance(part, Mapping) else {}

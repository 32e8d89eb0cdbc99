"""Makes the strict build of the documentation fail where the API reference shows an undocumented argument.

It also takes the roles out of what is shown: of :class:`X` the name is left.

MkDocs calls :func:`on_page_content` for every page (``hooks`` in mkdocs.yml). The package is read by griffe, as
mkdocstrings reads it, and never imported.
"""

import logging
import re
from collections.abc import Iterator
from functools import cache

import griffe

log = logging.getLogger('mkdocs.hooks.check_arguments')  # a warning here ends `mkdocs build --strict`
SHOWN = re.compile(r'id="(mmseg_gpt[\w.]*)" class="doc doc-heading"')  # a heading that mkdocstrings has made
ROLE = re.compile(r':(?:class|func|meth|mod):<code>~?\.?')


def on_page_content(html: str, page, config, files) -> str:
    """Warns of each argument that is shown and not documented, or documented and not there; returns the page.

    Args:
        html: The page, made from its Markdown.
        page: The page as MkDocs knows it.
        config: The configuration of MkDocs; not needed.
        files: All files of the site; not needed.
    """
    for path in SHOWN.findall(html):
        for problem in problems_of(package()[path.removeprefix('mmseg_gpt.')]):
            log.warning('%s: %s %s', page.file.src_uri, path, problem)
    return ROLE.sub('<code>', html)


@cache
def package() -> griffe.Module:
    """Returns the package, read once for a build."""
    return griffe.load('mmseg_gpt', search_paths=['.'], allow_inspection=False, docstring_parser='google',
                       docstring_options=dict(warnings=False))


def problems_of(shown: griffe.Object | griffe.Alias) -> Iterator[str]:
    """Yields what is wrong with the docstring of a class or function, in words.

    Args:
        shown: What a page shows; of attributes and modules nothing is asked but a docstring.
    """
    if not shown.has_docstring:
        yield 'has no docstring'
    elif shown.is_class or shown.is_function:
        given, documented = arguments_of(shown), documented_in(shown)
        attributes = [name for name, member in shown.all_members.items() if member.is_attribute]
        if missing := [name for name in given if name not in documented]:
            yield f'does not document {", ".join(missing)}'
        if unknown := [name for name in documented if name not in (*given, *attributes)]:
            yield f'documents {", ".join(unknown)}, which it does not have'


def arguments_of(shown: griffe.Class | griffe.Function) -> list[str]:
    """Returns the names that a caller may pass; ``*args`` counts as documented with ``**kwargs`` and is left out.

    Args:
        shown: A class, whose arguments are those of ``__init__`` or its fields, or a function.
    """
    if shown.is_class and any('NamedTuple' in str(base) for base in shown.bases):
        return [name for name, member in shown.members.items() if member.is_attribute and member.annotation
                and 'property' not in member.labels]
    return [each.name for each in shown.parameters if each.name not in ('self', 'cls')
            and not each.name.startswith('_') and each.kind is not griffe.ParameterKind.var_positional]


def documented_in(shown: griffe.Class | griffe.Function) -> list[str]:
    """Returns the names under Args and Attributes of a docstring and, for a class, of those that it inherits from.

    Args:
        shown: A class or a function.
    """
    holders = [shown]
    if shown.is_class:
        init = shown.all_members.get('__init__')
        holders += [init.final_target.parent] if init and '__init__' not in shown.members else []
    return [entry.name.lstrip('*') for holder in holders if holder.docstring
            for section in holder.docstring.parsed if section.kind in (
                griffe.DocstringSectionKind.parameters, griffe.DocstringSectionKind.attributes)
            for entry in section.value]

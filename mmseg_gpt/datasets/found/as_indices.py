"""Masks whose values are numbers of classes."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ...wording import listed
from .class_table import ClassTable, Row, says_unlabelled
from .evidence import Evidence, percent, say_ignored_values
from .facts import as_rgb
from .findings import Understanding
from .rule import HIGHEST, IGNORED, LOWEST, MaskRule, full_palette

MOST_CLASSES = 254  # 255 is ignored, and 254 stands for nothing
# More values in one mask than classes usually are, and the share of pixels in regions below which it is a picture.
MANY, REGIONS = 60, 0.5
USUAL_IGNORED = (255, -1)
# Shares of the pixels of a value that are solid, above which it makes regions and below which it is only on borders.
REGION, BORDER = 0.2, 0.02


def judge_indices(evidence: Evidence, found: Understanding) -> None:
    """Finds the class of each value.

    Args:
        evidence: What is known of the masks.
        found: Gets the rule, or the problems, and what is to be said.
    """
    lossy = [each.mask for each in evidence.facts if each.lossy]
    if lossy:
        found.problems.append(f'{lossy[0]} is in a format that blurs values, as JPEG does ({len(lossy)} of '
                              f'{len(evidence.facts)} masks), so its class numbers are lost. Export the masks as PNG')
        return
    if evidence.ignore.colours:
        found.problems.append(f'--ignore {",".join(map(str, min(evidence.ignore.colours)))} is a colour, and the masks '
                              'have numbers: write a value, or the name of a class')
        return
    table = placed(evidence, found) if evidence.table else made_up(evidence, found)
    found.template = template(evidence, table)
    if table is None:
        return
    classes = table.classes(evidence.ignore.names)
    numbers = {name: number for number, name in enumerate(classes)}
    of_value = {row.value: numbers.get(table.class_of(row), IGNORED) if row.name not in evidence.ignore.names
                else IGNORED for row in table.rows}
    usual = {value: IGNORED for value in USUAL_IGNORED if value not in of_value}
    of_value = usual | of_value | {value: IGNORED for value in evidence.ignore.values}
    if problem := wrong_table(table, classes, of_value) or unknown_values(evidence, table, of_value):
        found.problems.append(problem)
        return
    colours = dict(reversed([(table.class_of(row), row.colour or palette_colour(evidence, row.value))
                             for row in table.rows]))
    found.rule = MaskRule('indices', classes, full_palette(colours[name] for name in classes), of_value)
    say(evidence, table, found)
    found.warnings += smoothed_borders(evidence, [value for value, label in of_value.items() if label != IGNORED])


def smoothed_borders(evidence: Evidence, classes: Sequence[int]) -> list[str]:
    """Warns of masks that were scaled with smoothing, which puts numbers of other classes on the borders of two.

    Args:
        evidence: What is known of the masks.
        classes: The values that are not ignored.
    """
    several, smoothed = 0, []
    for facts in evidence.facts:
        kept = np.isin(facts.values, classes)
        regions = facts.values[kept & (facts.solid >= REGION * facts.counts)]
        if len(regions) < 2:
            continue
        several += 1
        between = (facts.values > regions[0]) & (facts.values < regions[-1]) & (facts.solid <= BORDER * facts.counts)
        smoothed += [(facts.mask, facts.values[kept & between].tolist())] if (kept & between).any() else []
    if len(smoothed) <= several / 2:
        return []
    file, values = smoothed[0]
    return [f'In {len(smoothed)} masks some values make no regions, such as {listed(values)} in {file}. Thin lines '
            'look so; or the masks were scaled with smoothing, which puts numbers of other classes on borders: scale '
            'them by nearest neighbour']


def wrong_table(table: ClassTable, classes: tuple[str, ...], of_value: dict[int, int]) -> str:
    """Says why a table of classes cannot be used; empty if it can."""
    if len(classes) > MOST_CLASSES:
        return (f'{table.source} has {len(classes)} classes; {MOST_CLASSES} are the most, as masks are kept with 8 '
                'bits and 255 is ignored')
    if len(classes) < 2:
        return (f'{table.source} leaves {"one class" if classes else "no class"} to learn ({listed(classes)}); two are '
                'needed: name the background too')
    if outside := sorted(value for value in of_value if not LOWEST <= value <= HIGHEST):
        return f'{table.source} gives the value {outside[0]} a meaning; values go from {LOWEST} to {HIGHEST}'
    return ''


def placed(evidence: Evidence, found: Understanding) -> ClassTable | None:
    """Returns the named classes with their values, which are their places if no values are named.

    Names without values are those of 0, 1, 2 and so on, or of 1, 2, 3 if 0 is ignored or never occurs; None, and a
    problem, where both can be meant.
    """
    table = evidence.table
    if table.has_values:
        return table
    number, values = len(table.rows), evidence.values.values
    highest = int(max((value for value in values if value not in USUAL_IGNORED), default=0))
    inside = sorted(value for value in evidence.ignore.values if 0 <= value < number)
    one_more = highest == number
    if one_more and (inside == [0] or (0 not in values and not inside)):
        found.notes.append(f'The names of {table.source} are those of the values 1 to {number}; 0 '
                           f'{"is ignored" if inside else "never occurs"}')
        return ClassTable(tuple(row._replace(value=place) for place, row in enumerate(table.rows, 1)), table.merges,
                          table.source)
    if inside:
        found.problems.append(
            f'--ignore {inside[0]} can be understood in two ways: {table.source} names {number} classes, and it is not '
            f'clear whether {table.rows[inside[0]].name!r} is the name of {inside[0]} or of {inside[0] + 1}. Ignore it '
            f'by its name, --ignore {table.rows[inside[0]].name}, or give the values too, as {evidence.template} does')
        return None
    return table.numbered()


def made_up(evidence: Evidence, found: Understanding) -> ClassTable | None:
    """Returns classes named by the values that occur; None, and a problem, if they are hardly numbers of classes."""
    ignored = evidence.ignore.values
    values = [int(value) for value in evidence.values.values if value not in ignored]
    kept = [value for value in values if value not in USUAL_IGNORED]
    remedy = (f'If they are classes, name them: {evidence.template} lists the values found, and --classes '
              f'{evidence.template} takes it')
    if problem := no_classes(evidence, kept):
        found.problems.append(problem)
    elif len(kept) < 2:
        found.problems.append(f'All masks have the value {listed(kept) or 255} alone, such as '
                              f'{evidence.facts[0].mask}; at least two classes are needed')
    elif 255 in values and (max(kept) >= 128 or np.gcd.reduce(kept) >= 10):
        found.problems.append(f'The masks have the values {listed(values, 12)}, and it is not clear whether 255 is a '
                              f'class or not labelled. Say --ignore 255, or name the classes: {evidence.template} '
                              'lists the values')
    elif counts_objects(evidence):
        found.problems.append('The values of each mask count from 1 up to another number, as numbers of objects do, '
                              f'and not of classes; {evidence.facts[0].mask} has {len(evidence.facts[0].values)}. '
                              f'Export masks of classes (semantic, not instances). {remedy}')
    else:
        if kept != list(range(len(kept))):
            found.warnings.append(f'The values in the masks have gaps: {listed(kept, 12)}. Each is taken as a class')
        return ClassTable(tuple(Row(f'class {value}', value) for value in kept), source='the values in the masks')
    return None


def no_classes(evidence: Evidence, kept: list[int]) -> str:
    """Says why values are not numbers of classes but of objects, depth or gray levels; empty if they may be."""
    totals = evidence.values
    highest = totals.values.argmax()
    file = evidence.file(totals, highest)
    many = max(evidence.facts, key=lambda facts: len(facts.values))
    large = np.array([value for value in kept if value > 255])
    if len(large) and large.min() >= 1000 and (large // 1000).max() <= 255 and (large % 1000).max() < 500:
        return (f'{file} has values such as {listed(large, 4)}, which are class * 1000 + object, as in '
                "Cityscapes' *_instanceIds. Use the masks of classes: *_labelIds or *_labelTrainIds")
    if len(large) or (len(many.values) > MANY and many.solid.sum() < REGIONS * many.pixels):
        file = file if len(large) else many.mask
        other = '' if file == many.mask else f'{many.mask} has '
        return (f'{file} has values to {totals.values[highest]}, and {other}{len(many.values)} different ones: depths, '
                f'gray levels or numbers of objects, not of classes, of which there are {MOST_CLASSES} at most. If '
                f'they are classes, name each value: {evidence.template} lists those found')
    if len(kept) > MOST_CLASSES:
        return f'The masks have {len(kept)} different values, and {MOST_CLASSES} classes are the most'
    return ''


def counts_objects(evidence: Evidence) -> bool:
    """Says whether the values of each mask are 1, 2, 3 to another number, which classes hardly ever are."""
    highest = []
    for facts in evidence.facts:
        own = [value for value in facts.values if value not in (0, *USUAL_IGNORED)]
        if own != list(range(1, len(own) + 1)):
            return False
        highest.append(len(own))
    return len(Counter(highest)) >= 3 and max(highest) >= 5


def unknown_values(evidence: Evidence, table: ClassTable, of_value: dict[int, int]) -> str:
    """Names values that are of no class, with what may be meant; empty if there are none."""
    totals = evidence.values
    unknown = np.flatnonzero(~np.isin(totals.values, list(of_value)))
    if not len(unknown):
        return ''
    values = totals.values[unknown].tolist()
    if problem := no_classes(evidence, totals.values.tolist()):
        return f'{problem}; {table.source} has none of the values {listed(values, 4)}'
    known = sorted(value for value in of_value if value not in USUAL_IGNORED)
    problem = (f'{evidence.file(totals, unknown[0])} has the value {values[0]}, which is of no class: {table.source} '
               f'has {known[0]} to {known[-1]}. Found are {listed(values, 8)} in {percent(totals.share(unknown))} of '
               'the pixels')
    if values == [len(table.rows)] and 0 in totals.values:
        return (f'{problem}. If {values[0]} is not labelled: --ignore {values[0]}. If 0 is not labelled, and the names '
                f'begin with 1: --ignore 0. If a name is missing, add it; {evidence.template} lists the values')
    return f'{problem}. If not labelled: --ignore {values[0]}. If a class: {evidence.template} lists the values'


def palette_colour(evidence: Evidence, value: int) -> tuple[int, int, int] | None:
    """Returns the colour of a value in the masks' palettes; None without one."""
    for facts in evidence.facts:
        if facts.kind == 'palette' and value in facts.values:
            return as_rgb(facts.colours[np.flatnonzero(facts.values == value)[0]])
    return None


def say(evidence: Evidence, table: ClassTable, found: Understanding) -> None:
    """Says which value is which class, and what is ignored and how much of it there is."""
    rule, totals = found.rule, evidence.values
    kinds = {'gray': 'gray', 'palette': 'with a palette', 'channels': 'in three equal channels'}
    meaning = [f'{value} = {rule.classes[label]}' for value, label in sorted(rule.value_to_class.items())
               if label != IGNORED]
    kind = listed(sorted(kinds[kind] for kind in evidence.kinds()))
    found.notes.append(f'The masks are numbers of classes ({kind}), by {table.source}: {listed(meaning, 40)}')
    names = {row.value: row.name for row in table.rows}
    reasons: dict[str, list[int]] = {}
    for place, value in enumerate(totals.values.tolist()):
        name = names.get(value, '')
        if rule.value_to_class[value] == IGNORED and value not in evidence.ignore.values:
            reason = (f'as {name!r}' if says_unlabelled(name) else
                      f'by --ignore {name}' if name in evidence.ignore.names else 'as no class has it')
            reasons.setdefault(reason, []).append(place)
    found.notes += [f'Ignored {reason}: {listed(totals.values[places].tolist())}, {percent(totals.share(places))} of '
                    'the pixels' for reason, places in reasons.items()]
    say_ignored_values(evidence, found)


def template(evidence: Evidence, table: ClassTable | None) -> str:
    """Returns a CSV table of the values found, with the classes that are known, for the user to complete."""
    totals = evidence.values
    names = {row.value: table.class_of(row) for row in table.rows} if table else {}
    lines = ['value,name,share of pixels,first mask']
    for place, value in enumerate(totals.values.tolist()[:256]):
        ignored = value in evidence.ignore.values or names.get(value) in evidence.ignore.names
        usual = 'void' if value in USUAL_IGNORED or ignored else f'class {value}'
        name = usual if ignored else names.get(value, usual)
        file = evidence.file(totals, place).replace('"', "'")
        lines.append(f'{value},"{name}",{percent(totals.share([place]))},"{file}"')
    return '\n'.join(lines) + '\n'

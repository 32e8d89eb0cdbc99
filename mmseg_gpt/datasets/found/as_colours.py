"""Masks whose colours are classes."""

import numpy as np

from ...wording import listed
from .as_binary import named
from .class_table import ClassTable, says_unlabelled
from .evidence import Evidence, Totals, code_of, colour_text, percent
from .facts import as_rgb
from .findings import Understanding
from .rule import IGNORED, MaskRule, channels_of, full_palette, nearest_colours

TOLERANCE = 24  # levels a channel: what JPEG adds in flat regions
OFF_MOST = 0.05  # the largest share of pixels that may be of no named colour
# A colour makes regions if at least this share of its pixels is solid, and it has at least this share of all pixels.
REGION, REGION_SHARE = 0.2, 0.0002
SHOWN = 40  # colours in a table to complete
PICTURE = 1000  # colours in a lossless mask from which it is rather a photograph


def judge_colours(evidence: Evidence, found: Understanding) -> None:
    """Finds the class of each colour.

    Args:
        evidence: What is known of the masks.
        found: Gets the rule, or the problems, and what is to be said.
    """
    totals, table = evidence.colours, evidence.table
    found.template = template(evidence)
    if problem := no_colours(evidence):
        found.problems.append(problem)
    elif table and table.has_colours:
        by_table(evidence, found)
    elif not table_of_two(evidence, found):
        regions = in_regions(totals)
        seen = [f'{colour_text(totals.values[i])} {percent(totals.share([i]))}' for i in regions[:SHOWN]]
        why = (f'{table.source} names classes without their colours' if table else 'no table says which class each is')
        found.problems.append(
            f'The masks are in colours, such as {evidence.file(totals, regions[0])}, and {why}. Found: '
            f'{listed(seen, SHOWN)}. Name them in {evidence.template}, which lists them, and pass --classes '
            f'{evidence.template}; lines of the same name make one class, and "void" is ignored')


def no_colours(evidence: Evidence) -> str:
    """Says why masks are no colours of classes; empty if they may be."""
    many = max(evidence.facts, key=lambda facts: len(facts.values))
    solid = many.solid.sum() / max(many.pixels, 1)
    if len(many.values) > PICTURE and solid < 0.5:
        return (f'{many.mask} has more than {PICTURE:,} colours, and few regions of one colour: it is a photograph, '
                'not a mask. Name the folder of the masks, or a pattern of their names')
    if all('ADE_' in each.mask for each in evidence.facts) and not evidence.table:
        return (f"{evidence.facts[0].mask} is in ADE20K's full coding, where red and green are the class and blue the "
                'object. Use the masks of its scene parsing benchmark (annotations/*.png, 0 to 150)')
    return ''


def in_regions(totals: Totals) -> np.ndarray:
    """Returns the places of the colours that make regions, the most frequent first; of all if none does."""
    regions = np.flatnonzero((totals.solid >= REGION * totals.counts) & (totals.counts >= REGION_SHARE * totals.pixels))
    regions = regions if len(regions) else np.arange(len(totals.values))
    return regions[np.argsort(-totals.counts[regions], kind='stable')]


def template(evidence: Evidence) -> str:
    """Returns a CSV table of the colours found, for the user to name."""
    totals, table = evidence.colours, evidence.table
    names = {row.colour: table.class_of(row) for row in table.rows} if table else {}
    lines = ['name,r,g,b,share of pixels,first mask']
    for place in in_regions(totals)[:SHOWN]:
        colour = as_rgb(totals.values[place])
        file = evidence.file(totals, place).replace('"', "'")
        name = names.get(colour, 'colour {} {} {}'.format(*colour))
        lines.append(f'"{name}",{",".join(map(str, colour))},{percent(totals.share([place]))},"{file}"')
    return '\n'.join(lines) + '\n'


def table_of_two(evidence: Evidence, found: Understanding) -> bool:
    """Takes one colour on black as foreground and background, if at most two classes are named; says if it did."""
    totals, table = evidence.colours, evidence.table
    names = table.names if table else ()
    if len(totals.values) != 2 or totals.values[0] != 0 or len(names) > 2 or evidence.ignore.colours:
        return False
    classes, colours = named(names), [as_rgb(code) for code in totals.values]
    found.rule = MaskRule('colours', classes, full_palette(colours), {colours[0]: 0, colours[1]: 1})
    found.notes.append(f'The masks have two colours: black is {classes[0]!r}, {colour_text(totals.values[1])} is '
                       f'{classes[1]!r}')
    return True


def by_table(evidence: Evidence, found: Understanding) -> None:
    """Reads colours as a table has them, and decides what becomes of those that it has not."""
    table, ignore = evidence.table, evidence.ignore
    if ignore.values:
        found.problems.append(f'--ignore {min(ignore.values)} is a value, and the masks are in colours: write a '
                              'colour, --ignore r,g,b, or the name of a class')
        return
    classes = table.classes(ignore.names)
    if not 2 <= len(classes) <= 254:
        found.problems.append(f'{table.source} leaves {len(classes)} classes to learn; from 2 to 254 are possible')
        return
    numbers = {name: number for number, name in enumerate(classes)}
    of_colour = {row.colour: IGNORED if row.name in ignore.names else numbers.get(table.class_of(row), IGNORED)
                 for row in table.rows} | {colour: IGNORED for colour in ignore.colours}
    colours = dict(reversed([(table.class_of(row), row.colour) for row in table.rows]))
    palette = full_palette(colours[name] for name in classes)
    tolerance = tolerance_for(evidence, of_colour, found)
    if not found.problems:
        found.rule = MaskRule('colours', classes, palette, of_colour, tolerance=tolerance)
        say(evidence, table, found)


def tolerance_for(evidence: Evidence, of_colour: dict, found: Understanding) -> int | None:
    """Returns how far colours may be from the table's; None if all are in it. What is too far becomes a problem."""
    totals = evidence.colours
    named_codes = np.array([code_of(colour) for colour in of_colour])
    off = ~np.isin(totals.values, named_codes)
    if not off.any() and totals.counts.sum() == totals.pixels:
        return None
    channels = channels_of(named_codes)
    apart = np.abs(channels[:, None] - channels[None]).max(2)
    tolerance = max(0, min(TOLERANCE, (int(apart[apart > 0].min(initial=256)) - 1) // 2))
    near, far = nearest_colours(totals.values, named_codes)
    lossy = any(each.lossy for each in evidence.facts)
    regions = off & (totals.solid >= REGION * totals.counts) & (totals.counts >= REGION_SHARE * totals.pixels)
    regions &= (far > tolerance) if lossy else True
    lost = totals.share(off & (far > tolerance)) + 1 - totals.counts.sum() / max(totals.pixels, 1)
    places = np.flatnonzero(regions if regions.any() else off)
    places = places[np.argsort(-totals.counts[places])]
    if regions.any() or lost > OFF_MOST or (totals.values < 0).any():
        names = {code_of(row.colour): row.name for row in evidence.table.rows}
        seen = [f'{colour_text(totals.values[i]) if totals.values[i] >= 0 else "no colour"} in '
                f'{percent(totals.share([i]))} of the pixels, nearest to {names.get(near[i], "ignored")!r} '
                f'{colour_text(near[i])}' for i in places[:8]]
        found.problems.append(
            f'{evidence.file(totals, places[0])} has colours that are not in {evidence.table.source}: {"; ".join(seen)}'
            f'{"; ..." if len(places) > 8 else ""}. Add them to the table ({evidence.template} lists all found), or '
            'ignore them: --ignore r,g,b')
        return None
    found.warnings.append(
        f'{percent(totals.share(off & (far <= tolerance)))} of the pixels are not exactly of a colour of '
        f'{evidence.table.source}, but within {tolerance} levels of one, and are read as it; {percent(lost)} are '
        f'further away, as on blurred borders, and are ignored. The most frequent is '
        f'{colour_text(totals.values[places[0]])} in {evidence.file(totals, places[0])}')
    return tolerance


def say(evidence: Evidence, table: ClassTable, found: Understanding) -> None:
    """Says which colour is which class, and what is ignored and how much of it there is."""
    totals, rule = evidence.colours, found.rule
    meaning = ['({},{},{}) = '.format(*colour) + rule.classes[label] for colour, label in rule.value_to_class.items()
               if label != IGNORED]
    found.notes.append(f'The masks are in colours, by {table.source}: {listed(meaning, 40)}')
    for row in table.rows:
        if rule.value_to_class[row.colour] == IGNORED:
            reason = 'by its name' if says_unlabelled(row.name) else 'by --ignore'
            share = totals.share(totals.values == code_of(row.colour))
            found.notes.append(f'{row.name!r} is ignored, {reason}: {percent(share)} of the pixels')

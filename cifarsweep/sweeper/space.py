"""Hydra's override grammar to Optuna's distributions and back. Pure: knows nothing of studies, runs or files."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    IntervalSweep,
    Override,
    RangeSweep,
    Sweep,
)
from hydra.errors import HydraException
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.distributions import check_distribution_compatibility as check_compatibility
from optuna.trial import Trial

from cifarsweep.sweeper import exclusions
from cifarsweep.sweeper.overrides import Row, as_written, is_zip, label, parse_zip
from cifarsweep.terminal import conditions, errors

Distribution = CategoricalDistribution | IntDistribution | FloatDistribution

MOST_STEPS = 100_000
"""A range of floats with more values than this is an interval in disguise, and slow to spell out."""

MOST_OPTIONS = 10_000
"""A sampler that visits each point looks at all values of a key for each trial."""

MOST_LOOKED_AT = 1_000_000
"""Combinations of values, to count those that are not excluded: 3 s."""

MOST_NUMBER, MOST_WHOLE = 1e100, 2**60
"""Samplers subtract, square and convert the ends of a range; these are far from where that overflows."""

_FORMS = "choice(…), range(…), interval(…), tag(log, …) or glob(…)"


class Condition(NamedTuple):
    """Holds in a trial whose `key` has one of `values`."""

    key: str
    values: tuple[Any, ...]
    text: str

    def holds(self, values: Mapping[str, Any]) -> bool:
        return self.key in values and values[self.key] in self.values

    def may_hold(self, values: Mapping[str, Any]) -> bool:
        return self.key not in values or self.holds(values)


@dataclass(frozen=True)
class Parameter:
    """One distribution of a key, in the trials where all its conditions hold."""

    key: str
    distribution: Distribution
    text: str
    texts: tuple[str, ...] = ()
    """Of a choice: each value as it stands after `=` in an override, in the order of the distribution's choices."""
    steps: tuple[float, ...] = ()
    """Of a range of floats: exactly the numbers that Hydra makes of it."""
    rows: tuple[Row, ...] = ()
    """Of a zip, whose name is `key`: what each of the distribution's choices stands for."""
    conditions: tuple[Condition, ...] = ()

    @property
    def name(self) -> str:
        """In the Optuna study. Each branch of a conditional key is a parameter of its own there, so that a sampler
        never mixes the learning rates of two optimizers."""
        return " | ".join([self.key, *(condition.text for condition in self.conditions)])

    def is_active(self, values: Mapping[str, Any]) -> bool:
        return all(condition.holds(values) for condition in self.conditions)

    @property
    def keys(self) -> list[str]:
        """Those that it gives values: several by a zip."""
        return list(self.rows[0].values) if self.rows else [self.key]

    def values_of(self, chosen: Any) -> Mapping[str, Any]:
        """By key, what a value of the distribution stands for."""
        if not self.rows:
            return {self.key: chosen}
        return self.rows[self.distribution.choices.index(chosen)].values  # type: ignore[union-attr]

    def chosen(self, values: Mapping[str, Any]) -> Any:
        """The value of the distribution that stands for these. Of a zip None where no row has them, or several do."""
        if not self.rows:
            return values[self.key]
        given = {key: values[key] for key in self.keys if key in values}
        matching = [i for i, row in enumerate(self.rows) if all(_is_same(row.values[k], v) for k, v in given.items())]
        return self.distribution.choices[matching[0]] if len(matching) == 1 else None  # type: ignore[union-attr]

    def values_for(self, key: str) -> list[Any]:
        """Each choice for one of its keys, or the lowest and the highest number."""
        return [row.values[key] for row in self.rows] or list(self.extremes)

    def accepts(self, value: Any) -> bool:
        if isinstance(self.distribution, CategoricalDistribution):
            return any(_is_same(value, choice) for choice in self.distribution.choices)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if self.steps:
            return any(math.isclose(value, step, rel_tol=1e-9, abs_tol=1e-12) for step in self.steps)
        low, high = self.distribution.low, self.distribution.high
        fits = isinstance(self.distribution, FloatDistribution) or (value - low) % self.distribution.step == 0
        return low <= value <= high and fits

    @property
    def options(self) -> Sequence[Any] | None:
        """Every value there is, or None where there is no end of them."""
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return d.choices
        if isinstance(d, IntDistribution):
            return range(d.low, d.high + 1, d.step)
        return self.steps or None

    @property
    def extremes(self) -> Sequence[Any]:
        """Each choice, or the lowest and the highest number."""
        d = self.distribution
        return d.choices if isinstance(d, CategoricalDistribution) else (self._exact(d.low), self._exact(d.high))

    def suggest(self, trial: Trial) -> Any:
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return trial.suggest_categorical(self.name, d.choices)
        if isinstance(d, IntDistribution):
            return trial.suggest_int(self.name, d.low, d.high, step=d.step, log=d.log)
        return self._exact(trial.suggest_float(self.name, d.low, d.high, step=d.step, log=d.log))

    def overrides(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Those that give its keys these values."""
        value = self.chosen(values)
        if not isinstance(self.distribution, CategoricalDistribution):
            return (f"{self.key}={self._exact(value)!r}",)
        index = self.distribution.choices.index(value)
        return self.rows[index].texts if self.rows else (f"{self.key}={self.texts[index]}",)

    def _exact(self, value: Any) -> Any:
        """The number of Hydra's range. Sums of binary steps differ in the last digit; a run's identity would too."""
        return min(self.steps, key=lambda step: abs(step - value)) if self.steps else value


def _is_same(a: Any, b: Any) -> bool:
    """Python's True is 1; a configuration's is not."""
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)


@dataclass(frozen=True)
class Space:
    """What is searched, parents of conditions before what depends on them, and what is fixed beside it."""

    parameters: tuple[Parameter, ...]
    fixed: tuple[str, ...] = ()
    excluded: tuple[conditions.Condition, ...] = ()
    """On keys that are searched: no trial may have such values."""

    @property
    def keys(self) -> list[str]:
        return list(dict.fromkeys(key for parameter in self.parameters for key in parameter.keys))

    @property
    def dimensions(self) -> list[str]:
        """The keys, and for the keys of a zip its name."""
        return list(dict.fromkeys(parameter.key for parameter in self.parameters))

    def active(self, values: Mapping[str, Any]) -> Iterator[Parameter]:
        """The parameters of a trial. The caller fills in `values` as they come."""
        for parameter in self.parameters:
            if parameter.is_active(values):
                yield parameter

    def filled(self, choose: Callable[[Parameter], Any]) -> dict[str, Any]:
        """What `choose` gives for each key that is active with the values chosen before it."""
        values: dict[str, Any] = {}
        for parameter in self.active(values):
            values |= parameter.values_of(choose(parameter))
        return values

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """A value for each key that is active in this trial."""
        return self.filled(lambda parameter: parameter.suggest(trial))

    def overrides(self, values: Mapping[str, Any], instead: Mapping[str, Any] | None = None) -> list[str]:
        """The fixed overrides and those of the values. With them a command trains what the trial trained.

        The values of keys in `instead` take the place of whatever they would be.
        """
        texts = [*self.fixed, *(text for p in self.active(values) for text in p.overrides(values))]
        kept = [text for text in texts if text.partition("=")[0] not in (instead or {})]
        return [*kept, *(f"{key}={as_written(value)}" for key, value in (instead or {}).items())]

    def values(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """From an Optuna trial's parameters, by name, to values by key."""
        given = [p.values_of(p._exact(params[p.name])) for p in self.parameters if p.name in params]
        return {key: value for values in given for key, value in values.items()}

    def place(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Optuna's fixed parameters for some or all values by key. ValueError names what does not fit."""
        given = {key: label(value) for key, value in given.items()}
        placed: dict[str, Any] = {}
        named = {exclusions.name_of(key): value for key, value in given.items()}
        for condition in self.excluded:
            if all(comparison.key in named for comparison in condition.comparisons) and condition.holds(named.get):
                raise ValueError(f"hydra.sweeper.exclude leaves it out, by {condition}")
        for key, value in given.items():
            if key not in self.keys:
                raise ValueError(f"{key}: not searched, expected some of {', '.join(self.keys)}")
            if (zipped := next((p for p in self.parameters if p.rows and key in p.keys), None)) is not None:
                if (chosen := zipped.chosen(given)) is None:
                    raise ValueError(f"{key}={value}: expected values of one row of {zipped.key}={zipped.text}")
                placed[zipped.name] = chosen
                continue
            possible = [p for p in self.parameters if p.key == key and all(c.may_hold(given) for c in p.conditions)]
            if not any(p.accepts(value) for p in possible):
                accepted = " or ".join(p.text for p in possible) or "no value under these conditions"
                raise ValueError(f"{key}={value}: expected {accepted}")
            placed |= {p.name: value for p in possible if p.accepts(value)}
        return placed

    def excluding(self, given: str | Sequence[str]) -> "Space":
        """The space without trials of which one of these conditions holds."""
        fixed = [
            override
            for override in map(OverridesParser.create().parse_override, self.fixed)
            if not override.is_delete()
        ]
        known = {exclusions.name_of(override.get_key_element()): label(override._value) for override in fixed}
        values = {key: [value] for key, value in known.items()}
        for parameter in self.parameters:
            is_choice = isinstance(parameter.distribution, CategoricalDistribution)
            for key in parameter.keys:
                listed = parameter.values_for(key) if is_choice else [0]
                values.setdefault(exclusions.name_of(key), []).extend(listed)
        return replace(self, excluded=tuple(exclusions.narrowed(exclusions.parse(given, values), known)))

    def excludes(self, values: Mapping[str, Any]) -> bool:
        """Whether a trial with these values is left out."""
        named = {exclusions.name_of(key): value for key, value in values.items()}
        return any(condition.holds(named.get) for condition in self.excluded)

    @property
    def combinations(self) -> Iterator[dict[str, Any]] | None:
        """The values of every trial, of those as well that are left out. None where a value is continuous."""
        if any(parameter.options is None for parameter in self.parameters):
            return None

        def further(values: dict[str, Any], parameters: Sequence[Parameter]) -> Iterator[dict[str, Any]]:
            if not parameters:
                yield values
                return
            first, *rest = parameters
            options = first.options if first.is_active(values) else None
            for chosen in [{}] if options is None else map(first.values_of, options):
                yield from further({**values, **chosen}, rest)

        return further({}, self.parameters)

    def size(self, at_most: int) -> int | None:
        """How many different trials there are, counted up to `at_most`. None where a value is continuous."""
        if (combinations := self.combinations) is None:
            return None
        left = (values for values in itertools.islice(combinations, MOST_LOOKED_AT) if not self.excludes(values))
        return sum(1 for _ in itertools.islice(left, at_most))

    def divided(self, keys: Sequence[str]) -> Iterator[tuple[dict[str, Any], "Space"]]:
        """Each combination of values of `keys`, and the space that is left with these values fixed.

        ValueError names a key that is not searched, depends on another or has no end of values.
        """
        divided: dict[str, Parameter] = {}
        for key in keys:
            parameter = next((p for p in self.parameters if key in p.keys), None)
            if parameter is None:
                raise ValueError(f"{key}: not searched, expected some of {', '.join(self.keys)}")
            if parameter.rows:
                raise ValueError(f"{key}: stands in {parameter.key}={parameter.text}, expected a key by itself")
            if parameter.conditions or parameter.options is None:
                raise ValueError(f"{key}={parameter.text}: expected choice(…) or range(…) without a condition")
            divided[key] = parameter
        for combination in itertools.product(*(parameter.options or () for parameter in divided.values())):
            values = dict(zip(keys, combination, strict=True))
            left = tuple(
                replace(p, conditions=tuple(c for c in p.conditions if c.key not in values))
                for p in self.parameters
                if p.key not in values and all(condition.may_hold(values) for condition in p.conditions)
            )
            overrides = (text for parameter in divided.values() for text in parameter.overrides(values))
            excluded = exclusions.narrowed(self.excluded, {exclusions.name_of(key): v for key, v in values.items()})
            if all(condition.comparisons for condition in excluded):
                yield values, Space(left, (*self.fixed, *overrides), tuple(excluded))

    def check_finite(self, sampler: str) -> None:
        """ValueError where a sampler that visits each point would never come to an end, or not to its first trial."""
        for parameter in self.parameters:
            given = f"{parameter.key}={parameter.text}: {sampler}"
            if parameter.options is None:
                raise ValueError(f"{given} needs choice(…) or range(…)")
            if parameter.options[MOST_OPTIONS:]:  # len() of a range ends at sys.maxsize
                raise ValueError(f"{given} needs {MOST_OPTIONS} values or fewer")

    def grid(self) -> dict[str, list[Any]]:
        """For Optuna's GridSampler. ValueError where a value depends on another, or there are too many points."""
        if any(parameter.conditions for parameter in self.parameters):
            raise ValueError("a space with conditions has no grid; hydra/sweeper/sampler=bruteforce walks through it")
        self.check_finite("GridSampler")
        grid = {parameter.name: list(parameter.options or ()) for parameter in self.parameters}
        if (size := math.prod(map(len, grid.values()))) > MOST_STEPS:
            keys = ", ".join(self.keys)
            raise ValueError(f"{keys}: a grid of {size} points, expected {MOST_STEPS} or fewer")
        return grid

    def check_same(self, before: Mapping[str, Any]) -> None:
        """ValueError names the first parameter that trials of the study before cannot share with trials now."""
        now = {parameter.name: parameter.distribution for parameter in self.parameters}
        for name in before.keys() - now.keys():
            raise ValueError(f"{name}: was searched, and is not any more")
        for name in now.keys() - before.keys():
            raise ValueError(f"{name}: was not searched")
        for name, distribution in now.items():
            try:
                check_compatibility(before[name], distribution)
            except ValueError:
                raise ValueError(f"{name}: was {describe(before[name])}, is {describe(distribution)}") from None


def describe(distribution: Distribution) -> str:
    """For a person: choice(a, b), 1 to 9 in steps of 2, 0.001 to 1 (log)."""
    if isinstance(distribution, CategoricalDistribution):
        return f"choice({', '.join(map(str, distribution.choices))})"
    steps = f" in steps of {distribution.step:g}" if distribution.step not in (None, 1) else ""
    return f"{distribution.low:g} to {distribution.high:g}{steps}{' (log)' if distribution.log else ''}"


# parsing


def parse(
    params: Mapping[str, Any],
    arguments: Sequence[str],
    loader: ConfigLoader | None = None,
    is_taken: Callable[[str], bool] = lambda name: False,
) -> Space:
    """The space of `params` (key: grammar, or conditions that lead to grammar) and of overrides on a command line.

    A sweep on the command line takes the place of the same key in `params`; what is no sweep is fixed.
    `loader` lists a group's options for glob(…); `is_taken` says which names no zip may have. ValueError names what is
    not accepted.
    """
    parser = OverridesParser.create(config_loader=loader)
    searched: dict[str, list[Parameter]] = {}
    fixed: dict[str, str] = {}
    for key, value in params.items():
        if value is None:  # takes the key out of a space that ships
            continue
        if is_zip(value):
            searched[str(key)] = [_zipped(parser, str(key), value, is_taken)]
            continue
        override = None if isinstance(value, Mapping) else _override(parser, str(key), value)
        if override and not override.is_sweep_override():
            fixed[str(key)] = str(override.input_line)
        else:
            searched[str(key)] = list(_branches(parser, str(key), value, ()))
    _check_conditions(_by_key(searched))
    replaced = set()
    for override in parser.parse_overrides(list(arguments)):
        key = override.get_key_element().removeprefix("~")
        if override.is_sweep_override():
            fixed.pop(key, None)
            searched[key] = [_parameter(override, ())]
            replaced.add(key)
        elif key in searched:
            only = "" if override.is_delete() else f"; '{key}=choice({override.get_value_element_as_str()})' fixes it"
            raise ValueError(f"{override.input_line}: {key} is searched, by {searched[key][0].text}{only}")
        else:
            fixed[key] = str(override.input_line)

    def can_hold(condition: Condition) -> bool:
        """Whether a narrower choice on the command line leaves it a value."""
        return condition.key not in replaced or any(
            _accept(searched[condition.key], condition.key, value) for value in condition.values
        )

    _check_zips(searched, fixed)
    reachable = [p for branches in searched.values() for p in branches if all(map(can_hold, p.conditions))]
    return Space(tuple(_parents_first(reachable)), tuple(fixed.values()))


def _by_key(searched: Mapping[str, list[Parameter]]) -> dict[str, list[Parameter]]:
    """With the keys of zips in place of their names."""
    return {key: branches for name, branches in searched.items() for key in (branches[0].keys if branches else [name])}


def _check_zips(searched: Mapping[str, list[Parameter]], fixed: Mapping[str, str]) -> None:
    """ValueError where a key of a zip is given values elsewhere, too."""
    zips = {name: branches[0] for name, branches in searched.items() if branches and branches[0].rows}
    for name, zipped in zips.items():
        for key in zipped.keys:
            others = [other for other in (*searched, *fixed) if other != name and other.lstrip("+~") == key.lstrip("+")]
            others += [other for other, parameter in zips.items() if other != name and key in parameter.keys]
            if others:
                raise ValueError(f"{key}: stands in {name}={zipped.text} and in {others[0]}, expected it once")


def _zipped(parser: OverridesParser, name: str, text: str, is_taken: Callable[[str], bool]) -> Parameter:
    rows, text = parse_zip(name, text, parser, is_taken).rows, " ".join(text.split())
    try:
        choices = CategoricalDistribution(_labels([" ".join(row.texts) for row in rows]))
    except ValueError as error:
        raise ValueError(f"{name}={text}: {error}") from error
    return Parameter(name, choices, text, rows=rows)


def _override(parser: OverridesParser, key: str, value: Any) -> Override:
    text = value if isinstance(value, str) else Override._get_value_element_as_str(value)
    try:
        return parser.parse_override(f"{key}={text}")
    except HydraException as error:
        reason = errors.reason_of_parser(error, text) or " ".join(str(error).split())
        raise ValueError(f"hydra.sweeper.params.{key}={text}: expected {_FORMS}; {reason}") from error


def _branches(parser: OverridesParser, key: str, value: Any, conditions: tuple[Condition, ...]) -> Iterator[Parameter]:
    if not isinstance(value, Mapping):
        yield _parameter(_override(parser, key, value), conditions)
        return
    before: list[Condition] = []
    for text, inner in value.items():
        try:
            override = parser.parse_override(str(text))
            is_choice = override.is_choice_sweep()
            values = tuple(map(label, override.sweep_iterator() if is_choice else [override._value]))
        except HydraException as error:
            expected = "expected a condition such as optimizer=sgd or optimizer=sgd,adam"
            raise ValueError(f"{key}: {text}: {expected}") from error
        condition = Condition(override.get_key_element(), values, str(text))
        for other in before:
            if other.key != condition.key:
                raise ValueError(f"{key}: {condition.text} stands beside {other.text}, expected conditions of one key")
            if set(other.values) & set(condition.values):
                raise ValueError(f"{key}: {condition.text} and {other.text} can hold at once, expected one branch")
        before.append(condition)
        yield from _branches(parser, key, inner, (*conditions, condition))


def _parameter(override: Override, conditions: tuple[Condition, ...]) -> Parameter:
    key, text = override.get_key_element(), override.get_value_string()
    value: Any = override._value
    try:
        if isinstance(value, RangeSweep):
            distribution, steps = _range(value)
            return Parameter(key, distribution, text, steps=steps, conditions=conditions)
        if isinstance(value, IntervalSweep):
            return Parameter(key, _interval(value), text, conditions=conditions)
        if isinstance(value, Sweep) and value.tags:
            raise ValueError(f"a choice takes no tag, here {', '.join(sorted(value.tags))}")
        if isinstance(value, ChoiceSweep) and not isinstance(value.list, Sweep):
            elements = list(value.list)  # in the order written: a shuffled one would be another space at each start
        else:
            elements = list(override.sweep_iterator()) if override.is_choice_sweep() else [value]
        choices, texts = CategoricalDistribution(_labels(elements)), tuple(map(as_written, elements))
        return Parameter(key, choices, text, texts=texts, conditions=conditions)
    except (ValueError, HydraException) as error:
        raise ValueError(f"{key}={text}: {' '.join(str(error).split())}") from error


def _labels(elements: Sequence[Any]) -> list[Any]:
    labels = [label(element) for element in elements]
    if not labels:
        raise ValueError("no value to choose from")
    for i, value in enumerate(labels):
        if value != value:
            raise ValueError("nan is no choice, as it equals nothing")
        if value in labels[:i]:  # by Python's equality, as Optuna tells them apart: 1, 1.0 and true are one
            raise ValueError(f"{value} stands twice, or equals another choice")
    return labels


def _range(sweep: RangeSweep) -> tuple[IntDistribution | FloatDistribution, tuple[float, ...]]:
    """Hydra's range: the end is exclusive, the step may be negative or a fraction, the order does not matter."""
    log = _is_log(sweep)
    start, stop, fraction = _checked(sweep.start, sweep.stop, sweep.step)
    if fraction == 0:
        raise ValueError("expected a step that is not 0")
    numbers = sweep.range()
    if isinstance(numbers, range):
        if not numbers:
            raise ValueError("no number in it, as the end is exclusive")
        step = abs(numbers.step) if len(numbers) > 1 else 1
        if log and step != 1:
            raise ValueError("a logarithmic range of whole numbers needs a step of 1")
        return IntDistribution(min(numbers[0], numbers[-1]), max(numbers[0], numbers[-1]), log=log, step=step), ()
    if log:
        raise ValueError("a logarithmic range has no fractional steps; expected tag(log, interval(…))")
    if abs((stop - start) / fraction) > MOST_STEPS:
        raise ValueError(f"more than {MOST_STEPS:,} values, expected interval(…)")
    steps = tuple(sorted(numbers))
    if not steps:
        raise ValueError("no number in it, as the end is exclusive")
    return FloatDistribution(steps[0], steps[-1], step=abs(float(fraction))), steps


def _interval(sweep: IntervalSweep) -> IntDistribution | FloatDistribution:
    """Both ends count, as in Optuna; whole numbers where it was cast by int(…) or tagged int."""
    log = _is_log(sweep)
    start, end = _checked(sweep.start, sweep.end)
    if not start < end:
        raise ValueError("expected the first number below the second")
    if log and start <= 0:
        raise ValueError("a logarithmic interval begins above 0")
    if "int" in sweep.tags or (type(start) is int and type(end) is int):
        return IntDistribution(math.ceil(start), math.floor(end), log=log)
    return FloatDistribution(float(start), float(end), log=log)


def _checked(*numbers: float | None) -> list[float]:
    known = [number for number in numbers if number is not None]  # Hydra's grammar leaves none out
    for number in known:
        if not abs(number) <= (MOST_WHOLE if type(number) is int else MOST_NUMBER):  # nan is neither less nor more
            raise ValueError(f"{number}: expected numbers up to {MOST_NUMBER:g}, whole ones up to {MOST_WHOLE}")
    return known


def _is_log(sweep: Sweep) -> bool:
    unknown = sweep.tags - {"log", "int"}
    if unknown:
        raise ValueError(f"tag {', '.join(sorted(unknown))}: expected log or int")
    return "log" in sweep.tags


# conditions


def _check_conditions(searched: Mapping[str, list[Parameter]]) -> None:
    """ValueError where a condition can never hold in the space as it is written."""
    for key, branches in searched.items():
        for condition in (condition for branch in branches for condition in branch.conditions):
            if condition.key not in searched:
                raise ValueError(f"{key}: the condition {condition.text} names {condition.key}, which is not searched")
            for value in condition.values:
                if not _accept(searched[condition.key], condition.key, value):
                    accepted = " or ".join(parent.text for parent in searched[condition.key])
                    raise ValueError(f"{key}: the condition {condition.text} never holds, {condition.key}={accepted}")


def _accept(parents: Iterable[Parameter], key: str, value: Any) -> bool:
    return any(any(_is_same(value, row.values[key]) for row in p.rows) if p.rows else p.accepts(value) for p in parents)


def _parents_first(parameters: list[Parameter]) -> Iterator[Parameter]:
    """In the order written, except that a parameter comes after what its conditions name."""
    waiting, placed = list(parameters), set[str]()
    while waiting:
        pending = {key for parameter in waiting for key in parameter.keys}
        ready = [p for p in waiting if not pending & {condition.key for condition in p.conditions} - placed]
        if not ready:
            raise ValueError(f"{', '.join(sorted(pending))}: the conditions depend on each other in a circle")
        yield ready[0]
        waiting.remove(ready[0])
        placed |= {*ready[0].keys} - {key for parameter in waiting for key in parameter.keys}

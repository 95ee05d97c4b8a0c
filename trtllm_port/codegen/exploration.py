"""Explore a model: trace it at several sizes, then change every key of its config and see what follows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from trtllm_port.codegen.configs.alternatives import (
    CONTEXT,
    TYPE,
    alternatives,
    asked_for,
    entries,
    is_name,
    optional,
    ropes,
    threshold,
    with_entry,
)
from trtllm_port.codegen.configs.computed_keys import computed_values, feeds
from trtllm_port.codegen.configs.full_size import full_size_error, place_of
from trtllm_port.codegen.configs.mixing import changed
from trtllm_port.codegen.configs.sizes import (
    LAYER_COUNTS,
    META_KEYS,
    SAMPLES,
    Sample,
    Samples,
    config_values,
    make_config,
    make_samples,
)
from trtllm_port.codegen.ir.structure import structure
from trtllm_port.codegen.lower.lowering import Lowered, lower
from trtllm_port.codegen.merge.anti_unification import NotMergeable
from trtllm_port.codegen.merge.classes import class_title, make_classes
from trtllm_port.codegen.proof import prove
from trtllm_port.codegen.record.causality import require_causal
from trtllm_port.codegen.record.tracing import goes_on_by_single_tokens, trace
from trtllm_port.codegen.solve.not_expressible import NotExpressible
from trtllm_port.codegen.write.classes import ClassText, ClassWriter, same_classes, what_stops
from trtllm_port.codegen.write.ledger import Ledger, compared_names, same_computation, unread_entries
from trtllm_port.errors import ConfigError, EnvironmentLackError, PortError, UnsupportedModelError
from trtllm_port.foundation.progress import Progress
from trtllm_port.huggingface.models import BLANK, first_line
from trtllm_port.huggingface.options import is_read
from trtllm_port.layers.config.built_in import parameter_sets
from trtllm_port.layers.config.per_layer import KEY, per_layer_keys

BUILT_IN = ("fixed", "untried")  # what became of a key: the port does not follow it, or no other value could be tried
LONG = 16  # lines that a port may become longer to follow a key; it is built in otherwise
NOT_READ_FROM_FILES = frozenset(("gradient_checkpointing", "pruned_heads", "torchscript"))  # set by callers


class Exploration:
    """What was found out about a model.

    Args:
        config: a Hugging Face config.
        trust_remote_code: run modelling code that comes with the model.
        progress: called with (phase, done, total).

    Attributes:
        samples: the traces: those of different sizes first, then those with changed keys that the port can follow.
        classes: the port's classes, expressed over all samples.
        ledger: what became of every key.
        entries: what is built in of configs within the config of which the port reads single entries.
        values: the config's keys and values.
        computed: what the config's class computes of the keys.
        absent: keys among them that the modelling code would follow and the config does not have.
        title: "Llama" for `LlamaForCausalLM`.

    Raises:
        UnsupportedModelError: the model cannot be traced, or computes something else at another size.
        ConfigError: Hugging Face's own model does not run with the config.
    """

    def __init__(self, config: Any, trust_remote_code: bool, progress: Progress) -> None:
        self.config = config
        self.trust_remote_code = trust_remote_code
        self.progress = progress
        self.values = config_values(config)
        self.ledger = Ledger()
        self.options: dict[str, list[Any]] = {}  # other values with which Hugging Face's code and the port go together
        self.pinned: set[str] = set()  # keys that the port may read, and that are built in all the same
        self.longest: dict[str, int] = {}  # numbers of tokens up to which texts are computed as the port does
        self.followed: dict[str, Any] = {}  # changed keys that the port follows → the other value
        self.written: list[Lowered] = []  # configurations that the classes followed as they were
        self.small = self._small()
        self.samples = self._sizes()
        absent = frozenset().union(*(sample.trace.absent for sample in self.samples)) - self.values.keys() - META_KEYS
        self.absent = sorted(absent - NOT_READ_FROM_FILES)
        self.values |= dict.fromkeys(self.absent)
        self.computed = computed_values(config, config_values(config))
        self.title = class_title(type(self.samples[0].trace.model).__name__)
        self.classes = self._first_classes()
        self._change_every_key()
        prove(self)
        self._account()
        text = "\n".join(line for each in self.classes for line in each.lines)
        traced = [sample.trace.sample.values for sample in self.samples[:SAMPLES]]
        entries = {key: unread_entries(key, traced, text) for key in sorted(self.ledger.used.keys() & self.values)}
        self.entries = {key: found for key, found in entries.items() if found}
        of_all = [lowered.trace.sample.values for lowered in [*self.samples, *self.written]]
        self.ledger.accepted = compared_names(self.values, of_all, text) | self.ledger.accepted

    @property
    def fields(self) -> set[str]:
        """The keys that the port reads."""
        return set[str]().union(*(text.fields for text in self.classes))

    # sizes

    def lower_sample(self, sample: Sample) -> Lowered:
        """Trace a configuration; raises whatever Hugging Face's code does."""
        return lower(trace(sample, trust_remote_code=self.trust_remote_code))

    def _small(self) -> Samples:
        try:
            return make_samples(self.config)
        except EnvironmentLackError:
            raise
        except Exception as error:  # any: it is Hugging Face's code that runs here
            own = full_size_error(self.config, error, self.trust_remote_code)
            if own is not None:
                raise ConfigError(
                    f"Hugging Face's own `{self.config.model_type}` does not run with this config: {_told(own)}",
                    hint="no port can be compared with it: correct what the message names",
                ) from error
            raise self._refused("built at any small size that was tried", error) from error

    def _sizes(self) -> list[Lowered]:
        found = []
        for index, sample in enumerate(self.small.traced):
            self.progress("trace", index, SAMPLES)
            try:
                found.append(self.lower_sample(sample))
                if not index:
                    require_causal(found[0].trace.model, self.config.model_type)
            except PortError:
                raise
            except Exception as error:  # any, as above
                if not goes_on_by_single_tokens(sample, trust_remote_code=self.trust_remote_code):
                    raise self._refused("traced", error) from error
                self.small = self.small.at_first_step()
                return self._sizes()
        return found

    def _refused(self, what: str, error: Exception) -> UnsupportedModelError:
        """The refusal of a model whose own code fails, with the place."""
        return UnsupportedModelError(
            f"a small `{self.config.model_type}` could not be {what}: {_told(error)}",
            hint=BLANK,
        )

    def _first_classes(self) -> list[ClassText]:
        try:
            return self.write_classes(self.samples)
        except (NotMergeable, NotExpressible) as reason:
            raise UnsupportedModelError(
                f"`{self.config.model_type}` depends on its sizes in a way that the generator cannot express: {reason}",
                hint=BLANK,
            ) from reason

    def write_classes(self, samples: list[Lowered]) -> list[ClassText]:
        """The classes over some samples; raises NotMergeable, NotExpressible or UnsupportedModelError."""
        classes = make_classes(samples)
        writer = ClassWriter(samples, f"{self.title}Config")
        return [writer.write(item, is_model=item is classes[-1]) for item in classes]

    # keys

    def _change_every_key(self) -> None:
        """Change the keys that are equal in all sizes, one by one, and make optional those that may be None."""
        base = self.samples[0].trace.sample
        columns = [sample.trace.sample.values for sample in self.samples]
        first = {key: value for key, value in columns[0].items() if key not in base.computed}
        used = self.fields
        equal = {key for key in first if all(values.get(key) == first[key] for values in columns)}
        # a list of layers is longer where there are more of them, which says nothing about its elements
        lists = {key for key in first if isinstance(first[key], list) and key not in {*used, *self.small.coupled}}
        constant = [key for key in first if key in equal or key in lists]
        coupled = [key for key in self.small.coupled if key in first and key not in constant]
        keys = [*(key for key in constant if key not in LAYER_COUNTS), *self.absent, *coupled]
        nullable = [key for key in first if key in used and key not in keys and optional(key, base.config)]
        tables = [key for key in first if isinstance(first[key], dict) and key not in {*keys, *nullable}]
        for index, key in enumerate([*keys, *nullable, *tables]):
            self.progress("change config keys", index, len(keys) + len(nullable) + len(tables))
            if isinstance(first.get(key), dict):
                self._change_entries(base, key)
            if key in tables:
                continue
            others = [None] if key in nullable else alternatives(key, first.get(key), base.config)
            found = self._choose(base, key, others) if is_name(first.get(key)) else self._change(base, key, others)
            if found[0] == "ignored" and key in constant:
                found = self._at_few_tokens(base, key, found)
            if key in coupled:
                self._enter_coupled(key, *found)
            elif key in keys:
                self._enter(key, *found)

    def _choose(self, base: Sample, key: str, names: Sequence[Any]) -> tuple[str, str]:
        """As `_change`, for a key that holds one of some names: each of them is tried."""
        if not names:
            if is_read(base.config, key):
                return "fixed", "what other names it may hold is not known"
            return "ignored", "the modelling code does not read it"
        found = {name: self._change(base, key, [name]) for name in names}
        proven = [name for name, (state, _) in found.items() if state not in BUILT_IN]
        if len(proven) < len(names) and proven:
            self.ledger.accepted[key] = [base.values[key], *proven]
        best = next((found[name] for name in proven if found[name][0] == "used"), None)
        return best or found[(proven or list(names))[0]]

    def _change_entries(self, base: Sample, key: str) -> None:
        """Change what a dict holds: rotary parameters to each type, and all entries one by one."""
        value = base.values[key]
        own = [each[TYPE] for each in parameter_sets(value) if TYPE in each]
        proven = [*own]
        for kind, other in ropes(value).items():
            state, why = self._change(base, key, [other])
            few = threshold(base.values.get(CONTEXT)) if state == "ignored" else []
            if few:  # of texts that are longer than the context, too
                state, why = self._change(base.with_values({CONTEXT: few[0]}), key, [other])
            if state in BUILT_IN:
                self.ledger.notes[f"{key}.{TYPE}"] = f"{kind}: {why}"
                continue
            proven.append(kind)
            for name in asked_for(key, base.config):  # what is ignored with one type need not be with another
                self._change_entry(base, key, name, other)
        if f"{key}.{TYPE}" in self.ledger.notes:
            self.ledger.accepted[f"{key}.{TYPE}"] = list(dict.fromkeys(proven))
        for name in entries(key, value, base.config):
            self._change_entry(base, key, name, value)

    def _change_entry(self, base: Sample, key: str, name: str, value: dict[str, Any]) -> None:
        """Change an entry of a dict that a key holds, or may hold."""
        if f"{key}.{name}" in self.ledger.accepted:  # it is built in already, whatever the rest of the dict is
            return
        state, why = self._change(base, key, with_entry(value, name, base.config))
        if state in BUILT_IN:
            present = [each.get(name) for each in parameter_sets(self.values[key])]
            self.ledger.accepted[f"{key}.{name}"] = list(dict.fromkeys(present))
            self.ledger.notes[f"{key}.{name}"] = why

    def _at_few_tokens(self, base: Sample, key: str, found: tuple[str, str]) -> tuple[str, str]:
        """What to enter for a number that changes nothing as long as texts are shorter than it is."""
        few = threshold(base.values.get(key))
        state, why = self._change(base, key, few)
        if state == "untried" and not any(changed(base, {key: number}) for number in few):
            return found
        if state in BUILT_IN:
            self.longest[key] = base.values[key]
            why = f"longer texts are computed in another way: {why}"
        return state, why

    def _enter(self, key: str, state: str, why: str) -> None:
        if state == "ignored":
            self.ledger.ignored[key] = why
        elif state in BUILT_IN:
            self.ledger.fixed[key] = self.values.get(key)
            self.ledger.notes[key] = why

    def _enter_coupled(self, key: str, state: str, why: str) -> None:
        """A key that varied with others only: the port follows it along with them, whatever it does alone."""
        if state in BUILT_IN:
            self.ledger.notes[key] = f"varies with other sizes: {why}"
        else:
            self._enter(key, state, why)

    def _change(self, base: Sample, key: str, others: Iterable[Any]) -> tuple[str, str]:
        """Try other values for a key; returns what to enter into the ledger, and why."""
        state, reason = "untried", "no other value could be tried"
        for other in others:
            try:
                changed = self.lower_sample(base.with_values({key: other}))
            except Exception as error:  # any: Hugging Face's code was given a value that it may not be made for
                reason = f"with {other!r}: {type(error).__name__}: {first_line(error)}"
                continue
            if same_computation(self.samples[0], changed):
                self._tell_apart(key, changed)
                self.options.setdefault(key, []).append(other)
                return "ignored", f"with {other!r} instead of {base.values.get(key)!r} nothing changes"
            problem = self._follow(base, key, other, changed)
            if problem is None:
                self.options.setdefault(key, []).append(other)
                return "used", ""
            state, reason = "fixed", f"with {other!r}: {problem}"
        return state, reason

    def _tell_apart(self, key: str, changed: Lowered) -> None:
        """If conditions mention a key that changes nothing, have them follow what it was mistaken for."""
        if any(key in text.deciding for text in self.classes):
            try:
                self.classes = self.write_classes([*self.samples, changed])
            except (NotMergeable, NotExpressible, UnsupportedModelError) as error:
                self.ledger.notes[key] = first_line(error)
            else:
                self.samples.append(changed)

    def _follow(self, base: Sample, key: str, other: Any, changed: Lowered) -> str | None:
        """Express the classes over a changed key, too, alone and with all others that were followed; or say why not."""
        if isinstance(other, dict) and self._is_written(changed):
            self.followed[key] = other
            self.written.append(changed)
            return None
        added = [changed]
        was_none = base.values.get(key) is None
        other_form = structure(changed.root) != structure(self.samples[0].root)
        decides = other is None or isinstance(other, bool | dict) or is_name(other)
        if decides or was_none or other_form:  # two sizes tell what it takes, not one
            another = 2 * other if was_none and type(other) in (int, float) else other
            try:
                added.append(self.lower_sample(self.samples[1].trace.sample.with_values({key: another})))
            except Exception as error:  # any, as above
                return f"{another} does not go with all sizes: {first_line(error)}"
            if other_form:  # a module that comes with it has sizes that two may have in common by chance
                with suppress(Exception):  # any: two sizes do, then
                    added.append(self.lower_sample(self.samples[2].trace.sample.with_values({key: another})))
        if self.followed:
            try:
                added.append(self.lower_sample(base.with_values({**self.followed, key: other})))
            except Exception as error:  # any, as above: the values may not go together
                self.ledger.notes[key] = f"not tried together with other changes: {first_line(error)}"
        try:
            classes = self.write_classes([*self.samples, *added])
        except (NotMergeable, NotExpressible, UnsupportedModelError) as error:
            return first_line(error)
        if (worse := self.worse(classes)) is not None:
            return worse
        self.followed[key] = other
        self.samples += added
        self.classes = classes
        return None

    def _is_written(self, changed: Lowered) -> bool:
        """Whether the classes follow a configuration as they are."""
        try:
            classes = self.write_classes([*self.samples, changed])
        except (NotMergeable, NotExpressible, UnsupportedModelError):
            return False
        return same_classes(classes, self.classes)

    def worse(self, classes: list[ClassText], longer: int = LONG) -> str | None:
        """Why what would follow more than the classes do, by more than some lines, is not worth it; None if it is."""
        if what_stops(classes) - what_stops(self.classes):
            return "the generator cannot express the change"
        lengths = [sum(len(text.lines) for text in texts) for texts in (classes, self.classes)]
        if lengths[0] - lengths[1] > longer:
            return f"the model computes something else, which would be {lengths[0] - lengths[1]} lines more"
        return None

    def _account(self) -> None:
        """Enter the keys that were not changed one by one."""
        used, ledger = self.fields, self.ledger
        for key in (key for key in self.values if key not in self.pinned):
            through = [name for name in self._feeds(key) if name in used]
            if through and key not in used:
                ledger.used[key] = f"the port follows `{through[0]}`, which is computed of it"
                for table in (ledger.fixed, ledger.notes, ledger.ignored):
                    table.pop(key, None)
            elif key in used:
                ledger.used[key] = "sizes, numbers or options of the port follow it"
                for table in (ledger.fixed, ledger.notes, ledger.ignored):
                    table.pop(key, None)
            elif key not in ledger.fixed and key not in ledger.ignored:
                if self._differs(key):
                    ledger.ignored[key] = "different in the traced configurations, and nothing follows it"
                else:  # followed at first, and not since what it goes with is built in
                    ledger.fixed[key] = self.values[key]
                    ledger.notes[key] = "not followed along with other keys that are built in"
        ledger.used |= {key: "computed by Hugging Face's class of other keys" for key in self.computed if key in used}
        for key in self.config.to_dict():
            if key in META_KEYS or key.startswith("_"):
                ledger.ignored[key] = "says how the model is stored, named or called, not what it computes"
        keys = per_layer_keys(self.config)
        if keys:
            ledger.used[KEY] = f"gives {', '.join(f'`{key}`' for key in keys)} layer by layer"

    def _differs(self, key: str) -> bool:
        """Whether a key has several values in the configurations that the classes are proven over."""
        first, *others = (lowered.trace.sample.values.get(key) for lowered in [*self.samples, *self.written])
        return any(other != first for other in others)

    def _feeds(self, key: str) -> list[str]:
        """What the config's class computes of a key."""

        def made_with(name: str, value: Any) -> dict[str, Any]:
            values = {**config_values(self.config), **({name: value} if name else {})}
            return computed_values(make_config(self.config, values), values)

        others = alternatives(key, self.values[key], self.config) if self.computed else []
        return feeds(key, others, made_with)


def _told(error: Exception) -> str:
    """An error with its place."""
    return f"{type(error).__name__}: {first_line(error)} ({place_of(error)})"

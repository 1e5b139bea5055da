"""Which rungs of the memory ladder a run may have: what --memory names, and what --allow lets in besides.

Rungs that change how a built model runs are `memory`'s; here are also those that need another precision or
another configuration, which a run has from its first step or not at all.
"""

from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from .config import Config, override
from .errors import ConfigError
from .ledger import CHANGES, ROUNDING, STATISTICS, ledger_entry
from .rungs import EFFECTS, Rung, other_models, rungs_up_to
from .runstate import Options

AUTO, OFF = "auto", "off"
ALLOW = {"statistics": STATISTICS, "changes": CHANGES}  # --allow


def word_for(effect: str) -> str:
    """Of --allow."""
    return next(word for word, most in ALLOW.items() if most == effect)


def every_rung(config: Config) -> Tuple[Rung, ...]:
    """Mildest first."""
    both = (*rungs_up_to(CHANGES), *other_models(config))
    return tuple(sorted(both, key=lambda each: EFFECTS.index(each.effect)))


def named_rungs(
    asked: Optional[str], allow: Optional[str], config: Config, have: Sequence[str] = ()
) -> Tuple[Rung, ...]:
    """The rungs that --memory names and a run does not `have` yet; () for auto and off.

    Raises ConfigError for an unknown name, and for one whose effect on the result is not allowed.
    """
    if asked in (None, AUTO, OFF):
        return ()
    names = [name.strip() for name in str(asked).split(",")]
    chosen = tuple(_find(name, config) for name in names if name and name not in have)
    for each in chosen:
        if not _is_allowed(each, allow):
            raise ConfigError(
                "--memory %s: %s" % (each.name, each.what),
                "Its effect: %s.  That is never chosen without being allowed." % each.effect,
                "Add --allow %s, or leave it out." % word_for(each.effect),
            )
    return chosen


def rungs_at_start(
    options: Options, config: Config, resumed: Optional[Mapping[str, Any]]
) -> List[Dict[str, Any]]:
    """Ledger entries of the rungs in use before a run's first step here: those of the run that goes on, those
    chosen before, those that --memory names.
    """
    meta = resumed["meta"] if resumed else {}
    entries = [dict(entry) for entry in [*(meta.get("memory") or ()), *options.rungs]]
    have = [str(entry["rung"]) for entry in entries]
    step = int(meta.get("iter", 0)) + 1
    named = named_rungs(options.memory, options.allow, config, have)
    return entries + [rung_entry(each, step, "--memory asks for it") for each in named]


def entries_of_config(options: Options, config: Config, kept: Sequence[str] = ()) -> List[Dict[str, Any]]:
    """Of the rungs that --memory names, those that need another configuration; `kept`: a run has these."""
    named = named_rungs(options.memory, options.allow, config, kept)
    return [rung_entry(each, 1, "--memory asks for it") for each in named if each.cfg_options]


def with_entries(config: Config, entries: Sequence[Mapping[str, Any]]) -> Config:
    """As the rungs of these entries want it."""
    for entry in entries:
        config = override(config, entry.get("cfg_options") or ())
    return config


def asked_precision(amp: Optional[str], entries: Sequence[Mapping[str, Any]]) -> Optional[str]:
    """What --amp says, else what a rung in use says."""
    return amp or next((str(entry["amp"]) for entry in entries if entry.get("amp")), None)


def allowed_entry(options: Options, config: Config, why: str) -> Optional[Dict[str, Any]]:
    """The next rung, mildest first, of those that change the result and that --allow has; None at the end.

    A precision or a number of ranks that was asked for stays.
    """
    used = {str(entry["rung"]) for entry in options.rungs} | set(str(options.memory).split(","))
    for each in every_rung(config):
        if each.name in used or each.effect not in ALLOW.values() or not _is_allowed(each, options.allow):
            continue
        asked = options.amp if each.amp else options.emulate_gpus if _sets_ranks(each) else None
        if asked is None:
            return rung_entry(each, 1, "%s; --allow %s" % (why, options.allow))
    return None


def rung_entry(each: Rung, step: int, why: str) -> Dict[str, Any]:
    """For the ledger and the checkpoint.  step: the first one that ran with it, counted from 1."""
    entry = dict(ledger_entry(each.what, each.effect, why), rung=each.name, step=step)
    if each.amp:
        entry["amp"] = each.amp
    if each.cfg_options:
        entry["cfg_options"] = list(each.cfg_options)
    return entry


def _is_allowed(each: Rung, allow: Optional[str]) -> bool:
    return EFFECTS.index(each.effect) <= EFFECTS.index(ALLOW.get(allow or "", ROUNDING))


def _sets_ranks(each: Rung) -> bool:
    return any(option.startswith("schedule.world_size=") for option in each.cfg_options)


def _find(name: str, config: Config) -> Rung:
    rungs = every_rung(config)
    for each in rungs:
        if each.name == name:
            return each
    raise ConfigError(
        "unknown memory rung: %r" % name, do="One of: " + ", ".join(each.name for each in rungs)
    )

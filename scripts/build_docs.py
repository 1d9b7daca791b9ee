"""Write the parts of docs/ that the code knows best: commands, settings, drawn masks.

python scripts/build_docs.py           write them
python scripts/build_docs.py --check   exit 1 and name the files that do not match the code
"""

from __future__ import annotations

import inspect
import sys
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
sys.path.insert(0, str(ROOT))  # this checkout's package, wherever another may be installed
NOTICE = "<!-- Written by `make docs` from the code; edit the code instead. -->"


def commands_page() -> str:
    """Every command with its arguments and options, from the Typer app as it runs."""
    from typer.main import get_command

    from meloformer.cli import app

    group: Any = get_command(app)
    lines = ["# Commands", "", NOTICE, "", "`meloformer COMMAND`, or `python -m meloformer COMMAND`.", ""]
    lines += [
        "Results go to stdout; progress, remarks and errors to stderr. Exit code: 0 done; 1 an error that you can fix, "
        "told in one line with the next command; 2 wrong usage; 70 a bug (`MELOFORMER_DEBUG=1` shows where); "
        "130 interrupted.",
        "",
        "Every command also has `--help`, or `-h`.",
        "",
    ]
    for name, command in group.commands.items():
        lines += _command_section(name, command)
    return "\n".join(lines)


def _command_section(name: str, command: Any) -> list[str]:
    arguments, rows = [], []
    hints = typing.get_type_hints(command.callback)
    for parameter in command.params:
        if parameter.hidden or not parameter.help:
            continue
        is_argument = parameter.param_type_name == "argument"
        has_default = parameter.default not in (None, False) and not callable(parameter.default)
        note = f"{parameter.help} Default: `{parameter.default}`." if has_default else str(parameter.help)
        if is_argument:
            shown = parameter.metavar or parameter.name.upper()
            arguments.append(shown if parameter.required else f"[{shown}]")
            rows.append((f"`{shown}`", note))
        else:
            value = "" if parameter.is_flag else f" `{parameter.metavar or _kind(hints[parameter.name])}`"
            rows.append((", ".join(f"`{word}`" for word in parameter.opts) + value, note))
    paragraphs = [" ".join(part.split()) for part in inspect.cleandoc(command.help or "").split("\n\n")]
    lines = [f"## {name}", ""]
    lines += [part for paragraph in paragraphs for part in (_example(paragraph), "")]
    usage = " ".join(["meloformer", name, *arguments, "[OPTIONS]"])
    lines += [f"    {usage}", "", "| | |", "|---|---|"]
    return [*lines, *(f"| {left} | {_cell(right)} |" for left, right in rows), ""]


def _example(paragraph: str) -> str:
    """As code, where it is a command."""
    return f"    {paragraph}" if paragraph.startswith("meloformer ") else paragraph


def _kind(hint: Any) -> str:
    """What an option's value is, in capitals."""
    inner = typing.get_args(hint) or (hint,)
    kinds = [part for part in inner if part is not types.NoneType]
    return {int: "NUMBER", float: "NUMBER", str: "TEXT", Path: "PATH"}.get(kinds[0], "VALUE")


def settings_page() -> str:
    """Every setting with its default and what it does, from the pydantic models."""
    from meloformer.settings import SIZES, Settings

    lines = ["# Settings", "", NOTICE, ""]
    lines += [
        "In a TOML file for `--config`, under `[section]`; or after `--set`, as `section.field=value`. An option such "
        "as `--steps` wins over `--set`, and `--set` over the file. A run writes its settings to `settings.toml`.",
        "",
    ]
    for section, field in Settings.model_fields.items():
        model = field.annotation
        assert isinstance(model, type)
        assert issubclass(model, BaseModel)
        lines += [f"## {section}", "", _cell(inspect.cleandoc(model.__doc__ or "")), ""]
        lines += ["| field | value | default | |", "|---|---|---|---|"]
        schema = model.model_json_schema()
        for name, info in model.model_fields.items():
            facts = _resolved(schema["properties"][name], schema)
            default = _default(section, name, info)
            lines.append(f"| `{name}` | {_cell(_value(facts))} | {default} | {_cell(info.description or '')} |")
        lines.append("")
        if section == "model":
            names = next(iter(SIZES.values()))._fields
            lines += ["The sizes:", "", f"| size | {' | '.join(f'`{name}`' for name in names)} |"]
            lines.append("|---" * (len(names) + 1) + "|")
            lines += [f"| {size} | {' | '.join(str(value) for value in row)} |" for size, row in SIZES.items()]
            lines.append("")
    return "\n".join(lines)


def _resolved(facts: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """A field's JSON schema with a reference followed."""
    return schema["$defs"][facts["$ref"].rsplit("/", 1)[1]] if "$ref" in facts else facts


def _default(section: str, name: str, info: Any) -> str:
    by_size = section == "model" and name in ("num_layers", "dim", "ffn_dim", "heads", "num_kv_heads", "summary_ffn")
    if by_size:
        return "of the size"
    value = info.default
    if value is PydanticUndefined or value is None:
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{list(value) if isinstance(value, tuple) else value}`"


def _value(facts: dict[str, Any]) -> str:
    """What a field takes: its kind, its choices or its range."""
    if "anyOf" in facts:
        return ", ".join(_value(choice) for choice in facts["anyOf"] if choice.get("type") != "null")
    if "const" in facts:
        return f"`{facts['const']}`"
    if "enum" in facts:
        return ", ".join(f"`{choice}`" for choice in facts["enum"])
    kinds = {"integer": "whole number", "number": "number", "boolean": "`true`, `false`", "string": "text"}
    item = facts.get("items", {}).get("type", "integer")
    kinds |= {"array": f"list of {'texts' if item == 'string' else kinds[item] + 's'}", "object": "name -> number"}
    low = facts.get("minimum", facts.get("exclusiveMinimum"))
    high = facts.get("maximum")
    words = kinds[facts["type"]]
    if low is not None:
        words += f", {'above' if 'exclusiveMinimum' in facts else 'at least'} {low:g}"
    return words + (f", at most {high:g}" if high is not None else "")


def _cell(text: str) -> str:
    """Text inside a table, RST code marks as Markdown's."""
    return " ".join(text.replace("``", "`").split()).replace("|", "\\|")


PIECE: str = (
    "BOS C:maj 1/4 120 #D T0 P36 V9 #0 T0 P60 D12 V9 P64 C:maj #D T0 P36 V9 #0 T0 P60 D12 V9 "
    "C:maj #D T0 P36 V9 #0 T0 P60 D12 V9 C:maj #D T0 P36 V9 #0 T0 P60 D12 V9 EOS"
)
"""Four bars of one quarter, drums and piano: small enough to draw."""


def drawn_masks() -> str:
    """Every phase and family on one small piece, as text."""
    import numpy as np

    from meloformer.model.batch import Batch
    from meloformer.model.visibility import draw, finished_mask, own_bar_mask, regular_masks, summary_mask
    from meloformer.settings import HeadFamily, ModelSettings
    from meloformer.tokens.vocabulary import Vocabulary

    names: list[str] = [*PIECE.split()]
    batch = Batch.of([np.array([Vocabulary.default().id_of(name) for name in names])])
    bars = [f"S{bar + 1}" for bar in range(int(batch.bar_document.shape[1]))]
    drawings = []
    families: tuple[HeadFamily, ...] = ("track", "ensemble", "onset", "pitch", "union")
    for family in families:
        settings = ModelSettings.of_size("tiny", heads={family: 1}, bar_offsets=(0, 1))
        mask = regular_masks(batch, settings)[family][0]
        drawings.append((f"Regular tokens to regular tokens, `{family}` (bar offsets 0 and 1)", draw(mask, names)))
    rest = (
        ("Regular tokens to finished summaries, in `ensemble` and `union` heads", finished_mask(batch)[0], names, bars),
        ("Summaries to summaries", summary_mask(batch)[0], bars, bars),
        ("Summaries to the regular tokens of their bar", own_bar_mask(batch)[0], bars, None),
    )
    drawings += [(title, draw(mask, rows, columns)) for title, mask, rows, columns in rest]
    return "\n".join(f"{title}:\n\n```text\n{drawing}```\n" for title, drawing in drawings)


def drawn_layouts() -> str:
    """Two families on the same piece, as FlexAttention meets them, as text."""
    import numpy as np
    import torch

    from meloformer.model.batch import Batch
    from meloformer.model.flex import FlexPath
    from meloformer.model.visibility import draw
    from meloformer.settings import ModelSettings
    from meloformer.tokens.attributes import GLOBAL
    from meloformer.tokens.vocabulary import Vocabulary

    names = PIECE.split()
    batch = Batch.of([np.array([Vocabulary.default().id_of(name) for name in names])])
    path = FlexPath.of(batch, ModelSettings.of_size("tiny", heads={"track": 1, "ensemble": 1}, bar_offsets=(0, 2)))
    track, ensemble = path.updated["track"], path.updated["ensemble"]
    assert track.order is not None
    num_globals, num_bars = int((batch.instrument == GLOBAL).sum()), batch.bar_document.shape[1]
    tokens = torch.arange(len(names))
    in_order = [number for number in track.order.tolist() if number < len(names)]
    first_summary = path.num_tokens + len(path.globals)
    keys = torch.cat([tokens, path.num_tokens + torch.arange(num_globals), first_summary + torch.arange(num_bars)])
    of_keys = [*names, *(names[number] for number in path.globals[:num_globals].tolist())]
    of_keys += [f"S{bar + 1}" for bar in range(num_bars)]
    nothing = torch.zeros((), dtype=torch.int64)
    of_track = track.mask_mod(nothing, nothing, tokens[:, None], tokens)
    of_ensemble = ensemble.mask_mod(nothing, nothing, tokens[:, None], keys)
    drawings = (
        ("`track`, sorted", draw(of_track, [names[number] for number in in_order])),
        ("`ensemble` (bar offsets 0 and 2): tokens, globals again, summaries", draw(of_ensemble, names, of_keys)),
    )
    return "\n".join(f"{title}:\n\n```text\n{drawing}```\n" for title, drawing in drawings)


def sizes_table() -> str:
    """True parameter counts of every size, from models without memory."""
    import torch

    from meloformer.model.meloformer import MeloFormer
    from meloformer.settings import SIZES, ModelSettings

    lines = [
        "| size | layers | width | heads | embeddings | regular stream | summary stream | total |",
        "|---" * 8 + "|",
    ]
    sizes: tuple[Any, ...] = tuple(SIZES)
    for size in sizes:
        settings = ModelSettings.of_size(size)
        with torch.device("meta"):
            counts = MeloFormer(settings).parameter_counts()
        shape = (settings.num_layers, settings.dim, settings.num_heads)
        lines.append(" | ".join([f"| `{size}`", *(f"{number:,}" for number in (*shape, *counts.values()))]) + " |")
    return "\n".join(lines)


def attention_page() -> str:
    """docs/attention.md with its drawings and its table of sizes made again."""
    text = (DOCS / "attention.md").read_text(encoding="utf-8")
    for name, build in (("layouts", drawn_layouts), ("drawn", drawn_masks), ("sizes", sizes_table)):
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
        before, found_begin, rest = text.partition(begin)
        _, found_end, after = rest.partition(end)
        if not (found_begin and found_end):
            raise SystemExit(f"docs/attention.md has no {begin.strip()} with its end")
        text = f"{before}{begin}\n{build().rstrip()}\n\n{end}{after}"
    return text


PAGES: dict[str, Callable[[], str]] = {
    "commands.md": commands_page,
    "settings.md": settings_page,
    "attention.md": attention_page,
}


def stale_pages() -> list[str]:
    """The pages that do not match the code."""

    def found(name: str) -> str:
        path = DOCS / name
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    return [name for name, build in PAGES.items() if found(name) != build().rstrip("\n") + "\n"]


def main() -> None:
    """Write or check."""
    stale = stale_pages()
    if "--check" in sys.argv[1:]:
        if stale:
            raise SystemExit(f"docs/ does not match the code: {', '.join(stale)}; run `make docs`")
        return
    for name in stale:
        (DOCS / name).write_text(PAGES[name]().rstrip("\n") + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

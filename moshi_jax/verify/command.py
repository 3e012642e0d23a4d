"""`moshi-jax verify FOLDER`: a line a recording, exit code 1 unless every one could be repeated."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jax
import tyro

from moshi_jax.verify.check import Check
from moshi_jax.verify.codec import check_codec
from moshi_jax.verify.functions import check_functions, is_of_functions
from moshi_jax.verify.language_model import RUNS as language_model_runs
from moshi_jax.verify.language_model import check_language_model
from moshi_jax.verify.lora import check_lora
from moshi_jax.verify.personaplex import RUNS as personaplex_runs
from moshi_jax.verify.personaplex import check_personaplex
from moshi_jax.verify.recording import Recording, read_recording
from moshi_jax.verify.runs import read_config
from moshi_jax.verify.session import check_session, checkpoint_folder
from moshi_jax.verify.training import check_training


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """Repeats recorded runs of the PyTorch references on the attached device."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """Folder of recordings (*.safetensors)."""
    only: str = ""
    """Names of recordings, separated by commas; all of the folder by default."""


class Unsupported(ValueError):
    """The recording is of something this version does not implement."""


def main(argv: list[str] | None = None) -> int:
    """Runs the command; see `VerifyOptions`."""
    options = tyro.cli(VerifyOptions, args=argv, prog="moshi-jax verify")
    device = jax.devices()[0]
    print(f"device {device.platform} {device.device_kind}, jax {jax.__version__}")
    verdicts = [verify(path) for path in _selected(options)]
    good = verdicts.count("ok") + verdicts.count("skipped")
    print(f"{verdicts.count('ok')} ok, {len(verdicts) - good} not, of {len(verdicts)} recordings")
    return 0 if good == len(verdicts) and "ok" in verdicts else 1


def verify(path: Path) -> str:
    """Repeats one recording, prints its line, and returns the verdict."""
    recording = read_recording(path)
    functions = is_of_functions(recording)
    if not (functions or recording.weights or checkpoint_folder(recording)):
        print(f"{recording.name}: skipped, it has no model of its own and no checkpoint beside it")
        return "skipped"
    try:
        checks = list(_checks(recording))
    except Unsupported as reason:
        print(f"{recording.name}: unsupported, {reason}")
        return "unsupported"
    verdict = "ok" if all(check.passed for check in checks) else "FAILED"
    texts = [check.text if check.passed else f"FAILED {check.text}" for check in checks]
    print(f"{recording.name}: {verdict}, {'; '.join(texts)}", flush=True)
    return verdict


def _checks(recording: Recording) -> Iterator[Check]:
    folder = checkpoint_folder(recording)
    if is_of_functions(recording):
        yield from check_functions(recording)
        return
    if "seanet" in recording.config:
        yield from check_codec(recording)
        return
    if folder is not None:
        yield from check_session(recording, folder)
        return
    if "dim" not in recording.config:
        raise Unsupported("its config describes neither a codec nor a language model")
    try:
        config = read_config(recording)
    except ValueError as error:
        raise Unsupported(str(error)) from error
    if recording.adapters:
        yield from check_lora(recording)
        return
    if "grad_names" in recording.provenance:
        yield from check_training(recording)
        return
    personaplex = config.timing == "personaplex"
    known = personaplex_runs if personaplex else language_model_runs
    strange = {run for run in recording.runs if run not in known and not run.startswith("sampled")}
    if strange or not recording.runs:
        raise Unsupported(f"runs {sorted(strange) or 'none'}, expected some of {sorted(known)}")
    yield from (check_personaplex if personaplex else check_language_model)(recording)


def _selected(options: VerifyOptions) -> list[Path]:
    if not options.folder.is_dir():
        raise FileNotFoundError(f"{options.folder} is not a folder, expected one with recordings")
    paths = {path.stem: path for path in sorted(options.folder.glob("*.safetensors"))}
    wanted = [name for name in options.only.split(",") if name] or list(paths)
    missing = sorted(set(wanted) - set(paths))
    if missing or not wanted:
        raise ValueError(
            f"recordings {missing or '*.safetensors'} not found in {options.folder}, expected "
            f"names among {sorted(paths)}; check --only"
        )
    return [paths[name] for name in wanted]

"""Fetches larger real models by package name: `python models/fetch.py all`.

pip downloads the package's wheel from wherever it is configured to; nothing is installed or run.
"""

import argparse
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Model:
    """An ONNX file inside a wheel."""

    name: str
    requirement: str
    member: str
    licence: str


MODELS = (
    Model(
        "ppocr-rec",
        "rapidocr-onnxruntime==1.4.4",
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
        "Apache-2.0",
    ),
    Model(
        "ppocr-det",
        "rapidocr-onnxruntime==1.4.4",
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
        "Apache-2.0",
    ),
    Model(
        "ppocr-cls",
        "rapidocr-onnxruntime==1.4.4",
        "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        "Apache-2.0",
    ),
    Model("silero-vad", "silero-vad==6.2.3", "silero_vad/data/silero_vad.onnx", "MIT"),
)


def download(requirement: str, folder: Path) -> Path:
    """Return the wheel of `requirement` that pip downloaded to `folder`.

    Raises:
        OSError: If pip failed; its last line says why.
    """
    # The wheel is only unpacked, so the Python versions that it supports do not matter.
    options = ["--no-deps", "--only-binary=:all:", "--ignore-requires-python"]
    options += ["--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder)]
    result = subprocess.run([*command, requirement], capture_output=True, text=True, check=False)
    if result.returncode:
        reason = (result.stderr.strip() or "no message").splitlines()[-1]
        raise OSError(f"pip could not download {requirement}: {reason}")
    return next(folder.glob("*.whl"))


def extract(wheel: Path, model: Model, output: Path) -> Path:
    """Write the model's member of the wheel to the folder `output` and return its path.

    Raises:
        OSError: If the wheel has no such member or the file cannot be written.
    """
    path = output / f"{model.name}.onnx"
    with zipfile.ZipFile(wheel) as archive:
        if model.member not in archive.namelist():
            raise OSError(f"{wheel.name} has no file {model.member}")
        content = archive.read(model.member)
    output.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def fetch(models: list[Model], output: Path) -> None:
    """Download each package once, extract its models and print what was written.

    Raises:
        OSError: If pip failed, a wheel lacks a model or a file cannot be written.
    """
    for requirement in dict.fromkeys(model.requirement for model in models):
        with tempfile.TemporaryDirectory() as folder:
            wheel = download(requirement, Path(folder))
            for model in models:
                if model.requirement == requirement:
                    path = extract(wheel, model, output)
                    size = path.stat().st_size / 1e6
                    print(f"{path}: {size:.1f} MB, {model.licence}, from {requirement}")


def main() -> int:
    """Fetch what the command line names; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=[*(model.name for model in MODELS), "all"])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "fetched")
    arguments = parser.parse_args()
    chosen = [model for model in MODELS if arguments.model in {model.name, "all"}]
    try:
        fetch(chosen, arguments.output)
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

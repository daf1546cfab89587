"""Exports of a run: read again, the same as its network; the model card; and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
import yaml
from conftest import REPOSITORY, small_run
from hydra.utils import instantiate
from PIL import Image
from torch import nn

import cifarsweep
from cifarsweep import classifier, export, predict
from cifarsweep.classifier import Classifier, Probabilities
from cifarsweep.results.records import RunResult
from cifarsweep.sweeper import hydra_compat

FORMATS = {name: file for name, (file, _, _) in export.FORMATS.items()}
MODELS = [
    pytest.param(path.stem, marks=[pytest.mark.slow] if path.stem == "resnet18" else [])
    for path in sorted((REPOSITORY / "conf" / "model").glob("*.yaml"))
]


def need(name: str) -> None:
    for package in export.FORMATS[name][2]:
        pytest.importorskip(package)


@pytest.fixture(scope="module")
def run_dir(data_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run beside one of another seed."""
    outputs = tmp_path_factory.mktemp("export") / "outputs"
    result, _ = (cifarsweep.train(*small_run(data_cache, outputs), f"seed={seed}") for seed in (0, 1))
    Image.new("RGB", (40, 20), (250, 0, 20)).save(outputs / "red.png")
    (found,) = (outputs / "runs").glob(f"*-{result.run_id}")
    return found


@pytest.mark.parametrize("name", FORMATS)
def test_an_export_is_compared_with_the_network_and_predicts_the_same(
    run_dir: Path, tmp_path: Path, name: str, data_cache: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    need(name)
    monkeypatch.setenv("CIFARSWEEP_CACHE", str(data_cache))
    assert export.main([str(run_dir), "--format", name, "--output", str(tmp_path / "out")]) == 0
    file, image = tmp_path / "out" / FORMATS[name], str(run_dir.parent.parent / "red.png")
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{file}: 200 test images: the same class, ")
    assert second == str(tmp_path / "out" / "README.md")

    assert predict.main([str(run_dir), image]) == predict.main([str(file), image, "--trust"]) == 0
    of_run, of_export = capsys.readouterr().out.splitlines()
    assert of_run == of_export


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", ["onnx", "torch"])
def test_each_model_gives_the_same_probabilities_once_exported(model: str, name: str, tmp_path: Path) -> None:
    need(name)
    torch.manual_seed(0)
    with hydra.initialize_config_dir(str(REPOSITORY / "conf"), **hydra_compat.VERSION_BASE):
        network: nn.Module = instantiate(
            hydra.compose("config", [f"model={model}"]).model, image_size=32, num_classes=10
        )
    with torch.no_grad():
        network(torch.randn(50, 3, 32, 32))  # statistics of the normalisation that are not the first ones
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.25, 0.3])
    whole = Classifier(Probabilities(network, mean, std), [f"{number}" for number in range(10)], 32).eval()
    file = tmp_path / FORMATS[name]
    file.write_bytes(export.FORMATS[name][1](whole, tmp_path))
    written = classifier.load(file, trust=True)
    images = torch.randint(256, (7, 3, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.allclose(whole(images), written(images), atol=1e-5)
        assert written(images[:1]).shape == (1, 10)
    assert (written.class_names, written.image_size) == (whole.class_names, 32)


def test_the_card_has_the_front_matter_of_model_hubs(
    run_dir: Path, tmp_path: Path, data_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("safetensors")
    monkeypatch.setenv("CIFARSWEEP_CACHE", str(data_cache))
    assert export.main([str(run_dir), "--format", "safetensors", "--output", str(tmp_path)]) == 0
    card = (tmp_path / "README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    (index,) = front["model-index"]
    accuracy, mean = index["results"][0]["metrics"]
    result = RunResult.read(run_dir)
    assert result is not None
    assert accuracy["value"] == pytest.approx(result.test_accuracy)
    assert mean["name"].startswith("Mean accuracy of 2 seeds, 95 % interval ")
    assert "python -m cifarsweep data=shapes data.num_train=600" in card

    hub = pytest.importorskip("huggingface_hub")
    found = hub.ModelCard(card).data
    assert found.license == "mit"
    assert [each.metric_value for each in found.eval_results] == [accuracy["value"], mean["value"]]


def test_an_export_that_gives_other_classes_is_not_written(
    run_dir: Path, tmp_path: Path, data_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def wrong(model: Classifier, run_dir: Path) -> bytes:
        bias = model.probabilities.network[-1].bias  # type: ignore[union-attr, index]
        with torch.no_grad():
            bias += torch.arange(10)
        written = export._torch(model, run_dir)
        with torch.no_grad():
            bias -= torch.arange(10)
        return written

    monkeypatch.setenv("CIFARSWEEP_CACHE", str(data_cache))
    monkeypatch.setattr(export, "FORMATS", {"torch": ("model.pt2", wrong, ())})
    assert export.main([str(run_dir), "--format", "torch", "--output", str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"{tmp_path / 'model.pt2'}: not written, as it is not the network of the run: 200 test images"
    )
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--format", "tflite"], "--format tflite: expected onnx, safetensors, torch or all"),
        (["--format", "onnx"], "--format onnx: needs onnx, onnxscript, onnxruntime: pip install -e '.[export]'"),
    ],
)
def test_what_cannot_be_written_is_said_before_anything_is_read(
    words: list[str], line: str, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    assert export.main(["nowhere", *words]) == 1
    assert capsys.readouterr().err == f"{line}\n"


def test_a_file_that_may_run_code_needs_trust(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "model.pt2").write_bytes(b"")
    assert predict.main([str(tmp_path / "model.pt2"), "x.png"]) == 1
    line = f"{tmp_path / 'model.pt2'}: may run any code, as torch.export uses pickle; see --trust\n"
    assert capsys.readouterr().err == line


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff" * 99, b"\x02\0\0\0\0\0\0\0{}"])
def test_a_file_that_is_no_export_is_named(tmp_path: Path, name: str, content: bytes, capsys: Any) -> None:
    need(name)
    (tmp_path / FORMATS[name]).write_bytes(content)
    assert predict.main([str(tmp_path / FORMATS[name]), "x.png", "--trust"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{tmp_path / FORMATS[name]}: not a model file (")


@pytest.mark.parametrize("file", FORMATS.values())
def test_an_export_that_is_not_there_is_no_folder_either(tmp_path: Path, file: str, capsys: Any) -> None:
    assert predict.main([str(tmp_path / file), "x.png", "--trust"]) == 1
    assert capsys.readouterr().err == f"{tmp_path / file}: No such file or directory\n"


def test_a_network_that_cifarsweep_did_not_export_is_named(tmp_path: Path, capsys: Any) -> None:
    need("safetensors")
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors", {"format": "pt"})
    assert predict.main([str(tmp_path / "model.safetensors"), "x.png"]) == 1
    reason = "not a model file ('cifarsweep' is missing in it, expected what cifarsweep wrote)"
    assert capsys.readouterr().err == f"{tmp_path / 'model.safetensors'}: {reason}\n"

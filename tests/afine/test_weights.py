"""Files of weights in every form they come in."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel

import afine
from afine.__main__ import main
from afine.backbone import TrunkShape
from afine.config import ModelConfig
from afine.model import AFine
from afine.training.phase1 import start_model
from afine.weights import backbone_shape, load_backbone, save, to_official
from runtime.errors import DataError


@pytest.fixture(scope="module")
def merged(tiny_file: Path) -> dict[str, dict[str, torch.Tensor]]:
    """The tiny weights in the layout of the official afine.pth."""
    groups: dict[str, dict[str, torch.Tensor]] = {}
    for name, value in load_file(tiny_file).items():
        group, _, key = name.partition(".")
        groups.setdefault(group, {})[key] = value.float()
    return groups


def same(one: AFine, two: AFine) -> bool:
    pairs = zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_official_merged_file_both_ways(tmp_path, merged, tiny):
    path = tmp_path / "afine.pth"
    torch.save(merged, path)
    model = afine.load(path)
    assert same(model, tiny)
    written = to_official(model)
    for group, tensors in merged.items():
        for name, value in tensors.items():
            if group == "finetuned_clip" and not name.startswith("visual."):
                continue
            if name in ("visual.proj", "visual.ln_post.weight", "visual.ln_post.bias"):
                continue
            assert torch.equal(written[group][name], value), (group, name)
    save(model, tmp_path / "ours.safetensors")
    arguments = ["export", str(tmp_path / "ours.safetensors"), "--out", str(tmp_path / "again.pth")]
    assert main(arguments) == 0
    assert same(afine.load(tmp_path / "again.pth"), tiny)


def test_official_file_of_a_full_model_has_every_published_name(afine_golden):
    golden = json.loads((afine_golden / "keys_full.json").read_text())["groups"]
    written = to_official(AFine())
    assert sorted(written) == sorted(golden)
    for group, names in golden.items():
        found = {k: list(v.shape) for k, v in written[group].items()}
        assert found == {k: facts["shape"] for k, facts in names.items()}


def test_text_part_is_taken_from_a_clip_file(tmp_path, merged, tiny):
    clip = tmp_path / "clip.pt"
    torch.save(merged["finetuned_clip"], clip)
    written = to_official(tiny, clip)
    assert written["finetuned_clip"].keys() == merged["finetuned_clip"].keys()
    for name, value in merged["finetuned_clip"].items():
        assert torch.equal(written["finetuned_clip"][name], value)


def test_our_file_round_trip_is_reproducible(tmp_path, tiny):
    for name in ("one", "two"):
        save(tiny, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    (tmp_path / "one").rename(tmp_path / "one.safetensors")
    assert same(afine.load(tmp_path / "one.safetensors"), tiny)
    odd = AFine(TrunkShape(24, 2, 8, 12, 32), hidden=4)
    odd.initialise(0)
    save(odd, tmp_path / "odd.safetensors")
    assert afine.load(tmp_path / "odd.safetensors").shape == odd.shape


def test_openai_state_dict_and_jit_archive(tmp_path, merged, tiny):
    state = merged["finetuned_clip"]
    torch.save(state, tmp_path / "state.pt")

    class Node(torch.nn.Module):
        pass

    root = Node()
    for name, value in state.items():
        *path, leaf = name.split(".")
        node = root
        for part in path:
            if not hasattr(node, part):
                node.add_module(part, Node())
            node = getattr(node, part)
        node.register_parameter(leaf, torch.nn.Parameter(value.half()))
    torch.jit.save(torch.jit.script(root), str(tmp_path / "jit.pt"))
    for file in ("state.pt", "jit.pt"):
        model = AFine(backbone_shape(tmp_path / file), hidden=16)
        load_backbone(model, tmp_path / file)
        for name, value in model.backbone.state_dict().items():
            torch.testing.assert_close(
                value, tiny.backbone.state_dict()[name], rtol=1e-3, atol=1e-4
            )


@pytest.mark.parametrize("is_safe", [True, False])
def test_hugging_face_folder(tmp_path, tiny, is_safe):
    """The trunk gives what transformers' CLIP gives after every block."""
    vision = {
        "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 3,
        "num_attention_heads": 1, "image_size": 96, "patch_size": 32,
    }  # fmt: skip
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1,
            "intermediate_size": 16, "vocab_size": 20}  # fmt: skip
    torch.manual_seed(0)
    clip = CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=8)).eval()
    clip.save_pretrained(tmp_path)
    if not is_safe:
        (tmp_path / "model.safetensors").unlink()
        torch.save(clip.state_dict(), tmp_path / "pytorch_model.bin")
    model = start_model(ModelConfig(backbone=str(tmp_path), hidden=4), seed=0)
    assert model.shape == TrunkShape(64, 3, 32, 64, 96)
    image01 = torch.rand(2, 3, 96, 96)
    mean, std = model.backbone.mean, model.backbone.std
    with torch.no_grad():
        expected = clip.vision_model(
            pixel_values=(image01 - mean) / std, output_hidden_states=True
        ).hidden_states[1:]
        found = list(model.backbone.features(image01))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs[:, 1:], rtol=1e-4, atol=1e-5)


def test_start_models(tmp_path, tiny, tiny_file):
    assert same(start_model(ModelConfig(backbone=str(tiny_file)), seed=0), tiny)
    small = ModelConfig(width=32, layers=2, patch_px=16, head_width=16, image_px=64, hidden=8)
    one, two = start_model(small, seed=1), start_model(small, seed=1)
    assert same(one, two) and not same(one, start_model(small, seed=2))


def test_files_that_are_no_weights(tmp_path, merged, tiny):
    with pytest.raises(DataError, match="not found"):
        afine.load(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(DataError, match="not a file of plain tensors"):
        afine.load(tmp_path / "text.pth")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(DataError, match="not a readable safetensors"):
        afine.load(tmp_path / "text.safetensors")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="holds none of"):
        afine.load(tmp_path / "folder")
    torch.save(merged["finetuned_clip"], tmp_path / "clip.pt")
    with pytest.raises(DataError, match="holds only the backbone"):
        afine.load(tmp_path / "clip.pt")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(DataError, match="holds a list"):
        afine.load(tmp_path / "list.pth")


def test_another_architecture_is_named(tmp_path, merged):
    changed = {group: dict(tensors) for group, tensors in merged.items()}
    changed["fidelity"]["alpha"] = torch.zeros(1, 1, 9219)
    torch.save(changed, tmp_path / "other.pth")
    with pytest.raises(
        DataError, match=r"'fidelity.alpha' is \(1, 1, 9219\), expected \(1, 1, 771\)"
    ):
        afine.load(tmp_path / "other.pth")
    del changed["fidelity"]["alpha"]
    torch.save(changed, tmp_path / "lacks.pth")
    with pytest.raises(DataError, match=r"'fidelity.alpha' is missing"):
        afine.load(tmp_path / "lacks.pth")


def test_code_in_a_pickle_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "touched",))

    torch.save({"visual.conv1.weight": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(DataError):
        afine.load(tmp_path / "trap.pth")
    assert not (tmp_path / "touched").exists()


def test_save_file_of_other_makers_is_read(tmp_path, tiny_file, tiny):
    """The flattened golden file has no metadata of ours: the geometry follows from the shapes."""
    tensors = {name: value.float() for name, value in load_file(tiny_file).items()}
    save_file(tensors, tmp_path / "plain.safetensors")
    assert same(afine.load(tmp_path / "plain.safetensors"), tiny)

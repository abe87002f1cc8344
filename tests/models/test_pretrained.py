"""Reading torch state dicts: right, damaged and hostile files."""

import hashlib
import io
import json
import os
import pickle
import zipfile

import numpy as np
import pytest

from jaxfair.errors import InputError
from jaxfair.models import pretrained, torch_files


def write_safetensors(path, tensors):
    """Writes {name: (dtype name, shape, bytes)} by the format's definition."""
    header, body = {"__metadata__": {"format": "pt"}}, b""
    for name, (dtype, shape, raw) in tensors.items():
        offsets = [len(body), len(body) + len(raw)]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
        body += raw
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


class Hostile:
    """Unpickling it would run a command."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def hostile_zip(path, payload):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", payload)


def test_safetensors_are_read_with_their_checksum(tmp_path):
    values = np.arange(6, dtype="<f4").reshape(2, 3)
    bf16 = (np.asarray([1.5, -2.0], "<f4").view("<u4") >> 16).astype("<u2")
    path = tmp_path / "w.safetensors"
    write_safetensors(
        path, {"a": ("F32", (2, 3), values.tobytes()), "b": ("BF16", (2,), bf16.tobytes())}
    )
    state, checksum = torch_files.read_state_dict(path)
    np.testing.assert_array_equal(state["a"], values)
    np.testing.assert_array_equal(state["b"], [1.5, -2.0])
    assert checksum == hashlib.sha256(path.read_bytes()).hexdigest()


def test_safetensors_written_by_their_own_package_are_read(tmp_path):
    package = pytest.importorskip("safetensors.numpy")
    tensors = {"x": np.ones((2, 2), np.float16), "n": np.asarray(3)}
    package.save_file(tensors, tmp_path / "w.safetensors")
    state, _ = torch_files.read_state_dict(tmp_path / "w.safetensors")
    for name, value in tensors.items():
        np.testing.assert_array_equal(state[name], value)


@pytest.mark.parametrize("zipped", [True, False])
def test_pth_files_of_both_torch_formats_are_read(tmp_path, zipped):
    nets = pytest.importorskip("tests.models.torch_nets")
    torch, net = nets.torch, nets.BasicBlock(3, 4, 2, nets.nn.BatchNorm2d)
    state = net.state_dict()
    state["turned"] = torch.arange(6.0).reshape(2, 3).T
    state["half"] = torch.ones(3, dtype=torch.bfloat16) * 1.5
    state["parameter"] = torch.nn.Parameter(torch.zeros(2))
    state["single"] = torch.arange(5)[3]
    state["empty"] = torch.zeros(0, 3)
    torch.save(state, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    ours, _ = torch_files.read_state_dict(tmp_path / "w.pth")
    assert set(ours) == set(state)
    for name, value in state.items():
        np.testing.assert_array_equal(ours[name], value.detach().float().numpy())


def test_a_checkpoint_with_a_state_dict_inside_is_read(tmp_path):
    nets = pytest.importorskip("tests.models.torch_nets")
    nets.torch.save({"epoch": 3, "state_dict": {"a": nets.torch.ones(2)}}, tmp_path / "w.pt")
    state, _ = torch_files.read_state_dict(tmp_path / "w.pt")
    np.testing.assert_array_equal(state["a"], [1, 1])


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_hostile_pickle_is_refused_and_nothing_runs(tmp_path, protocol):
    marker, path = tmp_path / "ran", tmp_path / "w.pth"
    payload = pickle.dumps({"a": Hostile(marker)}, protocol)
    hostile_zip(path, payload)
    with pytest.raises(InputError, match=r"system, which a state dict does not need"):
        torch_files.read_state_dict(path)
    path.write_bytes(payload)
    with pytest.raises(InputError, match=r"system, which a state dict does not need"):
        torch_files.read_state_dict(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "name", ["builtins eval", "builtins getattr", "torch._utils _rebuild_tensor", "torch load"]
)
def test_no_name_outside_the_list_is_looked_up(tmp_path, name):
    module, attribute = name.split()
    hostile_zip(tmp_path / "w.pth", f"c{module}\n{attribute}\n.".encode())
    with pytest.raises(InputError, match="nothing was run"):
        torch_files.read_state_dict(tmp_path / "w.pth")


def test_a_tensor_that_reaches_beyond_its_storage_is_refused(tmp_path):
    nets = pytest.importorskip("tests.models.torch_nets")
    nets.torch.save({"a": nets.torch.ones(1000)}, tmp_path / "w.pth")
    with zipfile.ZipFile(tmp_path / "w.pth") as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    (record,) = (name for name in records if name.endswith("data.pkl"))
    size = pickle.BININT2 + (1000).to_bytes(2, "little")
    assert records[record].count(size) == 2
    head, middle, tail = records[record].split(size)
    larger = pickle.BININT2 + (60000).to_bytes(2, "little")
    records[record] = head + size + middle + larger + tail
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    (tmp_path / "w.pth").write_bytes(buffer.getvalue())
    with pytest.raises(InputError, match="beyond its storage"):
        torch_files.read_state_dict(tmp_path / "w.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".npz"])
@pytest.mark.parametrize("content", [b"", b"not weights", b"\x80\x02}q\x00."])
def test_damaged_files_end_in_one_sentence(tmp_path, suffix, content):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"w{suffix}"):
        torch_files.read_state_dict(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no weights file at .*absent\.pth"):
        torch_files.read_state_dict(tmp_path / "absent.pth")


def test_the_extractor_is_filled_from_a_resnet18_file(tmp_path):
    nets = pytest.importorskip("tests.models.torch_nets")
    net = nets.randomise(nets.Extractor())
    nets.torch.save(net.state_dict(), tmp_path / "resnet18.pth")
    params, stats, checksum = pretrained.read_extractor(tmp_path / "resnet18.pth")
    assert len(checksum) == 64
    np.testing.assert_array_equal(stats["layer2_0"]["downsample_1"]["var"],
                                  net.layer2[0].downsample[1].running_var)  # fmt: skip
    truth = net.conv1.weight.detach().numpy().transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(params["conv1"]["kernel"], truth)


def test_weights_of_another_network_are_refused_by_name_and_shape(tmp_path):
    nets = pytest.importorskip("tests.models.torch_nets")
    state = nets.Extractor().state_dict()
    kept = {k: v for k, v in state.items() if k != "layer1.0.conv1.weight"}
    nets.torch.save(kept, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"no entry 'layer1\.0\.conv1\.weight'"):
        pretrained.read_extractor(tmp_path / "a.pth")
    nets.torch.save({**state, "bn1.bias": nets.torch.zeros(3)}, tmp_path / "b.pth")
    with pytest.raises(InputError, match=r"'bn1\.bias' has the shape \(3,\)"):
        pretrained.read_extractor(tmp_path / "b.pth")
    nets.torch.save({**state, "bn1.bias": nets.torch.full((64,), np.nan)}, tmp_path / "c.pth")
    with pytest.raises(InputError, match="not finite"):
        pretrained.read_extractor(tmp_path / "c.pth")

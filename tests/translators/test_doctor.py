"""The checkpoint doctor: what it names, what it mends, what it refuses."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from iguana_server.errors import ModelRefused
from iguana_server.synthesis.probe import probe
from iguana_server.translators import doctor
from iguana_server.translators.doctor import Report
from iguana_server.translators.norms import Norm
from tests.translators import published
from tests.translators.published import State

NORMS: tuple[Norm, ...] = ("batch", "instance", "instance-affine", "none")
CPU = torch.device("cpu")
Put = Callable[..., Path]


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Write a checkpoint; returns its path."""

    def write(content: Any, name: str = "latest_net_G.pth") -> Path:
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return write


def noise(channels: int = 3, side: int = 32) -> torch.Tensor:
    return torch.rand(2, channels, side, side, generator=torch.Generator().manual_seed(5)) * 2 - 1


def small(norm: str = "instance", *, dropout: bool = False) -> State:
    return published.resnet_state(3, 3, 4, 6, norm, dropout=dropout)


def test_doctor_names_every_resnet(put: Put) -> None:
    for norm in NORMS:
        for blocks in (6, 9):
            for dropout in (False, True):
                report = doctor.examine(put(published.resnet_state(3, 1, 5, blocks, norm, dropout=dropout)))
                assert (report.architecture, report.depth, report.width) == ("resnet", blocks, 5)
                assert (report.inputs, report.outputs) == (3, 1)
                assert (report.norm, report.dropout, report.generator) == (norm, dropout, True)
                assert (report.multiple, report.repairs) == (4, ())


def test_doctor_names_every_unet(put: Put) -> None:
    for norm in NORMS:
        for downs in (5, 7, 8):
            report = doctor.examine(put(published.unet_state(1, 3, 3, downs, norm)))
            assert (report.architecture, report.depth, report.width) == ("unet", downs, 3)
            assert (report.inputs, report.outputs) == (1, 3)
            assert (report.norm, report.dropout, report.generator) == (norm, None, True)
            assert report.multiple == 2**downs


def test_doctor_names_every_discriminator(put: Put) -> None:
    for norm in NORMS:
        for layers in (1, 3, 5):
            report = doctor.examine(put(published.patchgan_state(6, 5, layers, norm)))
            assert (report.architecture, report.depth, report.width) == ("patchgan", layers, 5)
            assert (report.inputs, report.norm, report.generator) == (6, norm, False)
        report = doctor.examine(put(published.pixelgan_state(3, 5, norm)))
        assert (report.architecture, report.width, report.norm) == ("pixelgan", 5, norm)
        with pytest.raises(ModelRefused, match=r"want a generator, got a discriminator \(pixelgan\)"):
            doctor.load_generator(put(published.pixelgan_state(3, 5, norm)))


def test_parameters_are_those_of_the_network(put: Put) -> None:
    for state in (small("batch"), small("instance"), published.patchgan_state(3, 5, 3, "batch")):
        report = doctor.examine(put(state))
        assert report.parameters == sum(p.numel() for p in report.build().parameters())


@pytest.mark.parametrize(
    ("name", "direction"),
    [
        ("latest_net_G_A.pth", "A to B"),
        ("200_net_G_B.pth", "B to A"),
        ("netG_A2B.pth", "A to B"),
        ("G_BA_150.pth", "B to A"),
        ("G_B2A_epoch33.pth", "B to A"),
        ("latest_net_G.pth", ""),
        ("latest_net_G_Aged.pth", ""),
    ],
)
def test_direction_is_what_the_files_name_says(put: Put, name: str, direction: str) -> None:
    report = doctor.examine(put(small(), name))
    assert report.direction == direction
    said = direction or "not said by the name"
    assert f"direction   {said}" in report.lines()


def test_discriminators_of_a_cycle_judge_the_other_side(put: Put) -> None:
    report = doctor.examine(put(published.patchgan_state(3, 4, 3, "instance"), "latest_net_D_A.pth"))
    assert report.direction.startswith("judges what should be in B")


def test_generator_does_what_the_checkpoint_did(put: Put) -> None:
    for norm in NORMS:
        state = small(norm, dropout=True)
        net, _ = doctor.load_generator(put(state))
        want = published.resnet(state, noise(), 6, norm, dropout=True)
        torch.testing.assert_close(net.eval()(noise()), want, rtol=0, atol=1e-5)
        state = published.unet_state(3, 3, 4, 5, norm)
        net, _ = doctor.load_generator(put(state))
        want = published.unet(state, noise(), 5, norm)
        torch.testing.assert_close(net.eval()(noise()), want, rtol=0, atol=1e-5)


def mended(put: Put, content: Mapping[str, object]) -> Report:
    """What is said of a sick file, whose generator must do what the healthy one does."""
    want = published.resnet(small(), noise(), 6, "instance")
    net, report = doctor.load_generator(put(content))
    torch.testing.assert_close(net.eval()(noise()), want, rtol=0, atol=1e-5)
    return report


def test_prefix_of_data_parallel_is_dropped(put: Put) -> None:
    report = mended(put, {f"module.{key}": tensor for key, tensor in small().items()})
    assert report.repairs == ("'module.' of DataParallel dropped before every name",)


def test_statistics_of_instance_norm_are_dropped(put: Put) -> None:
    """As checkpoints of PyTorch 0.3 and 0.4 have them; no picture is to be seen through them."""
    old = small()
    for key in [key for key in old if key.endswith(".bias") and key != "model.23.bias"]:
        layer = key.removesuffix(".bias")
        head, place = layer.rsplit(".", 1)
        norm = f"{head}.{int(place) + 1}"
        old |= {f"{norm}.running_mean": torch.full((4,), 9.0), f"{norm}.running_var": torch.ones(4)}
        old[f"{norm}.num_batches_tracked"] = torch.tensor(3)
    report = mended(put, old)
    assert report.repairs == (f"{3 * 17} running statistics of InstanceNorm dropped",)
    assert f"repair      {report.repairs[0]}" in report.lines()


def test_blocks_by_another_name_are_known(put: Put) -> None:
    report = mended(put, {key.replace("conv_block", "block"): t for key, t in small().items()})
    assert report.repairs == ("'block' of the residual blocks read as 'conv_block'",)


def test_doubles_are_brought_to_floats(put: Put) -> None:
    report = mended(put, {key: tensor.double() for key, tensor in small().items()})
    assert report.repairs == ("torch.float64 brought to torch.float32",)


def test_a_network_in_a_larger_checkpoint_is_found(put: Put) -> None:
    report = mended(put, {"epoch": 3, "netG": small(), "optimizer": {"state": {}, "param_groups": []}})
    assert report.repairs == ("taken from the entry 'netG' of the checkpoint",)


def test_one_of_several_networks_is_chosen_by_name(put: Put) -> None:
    path = put({"G_A": small("batch"), "G_B": small(), "D_A": published.patchgan_state(3, 4, 3, "batch")})
    net, report = doctor.load_generator(path, "G_B")
    want = published.resnet(small(), noise(), 6, "instance")
    torch.testing.assert_close(net.eval()(noise()), want, rtol=0, atol=1e-5)
    assert report.direction == "B to A"
    assert doctor.examine(path, "G_A").norm == "batch"
    assert not doctor.examine(path, "D_A").generator
    with pytest.raises(ModelRefused, match=r"want tensors under 'G', got G_A, G_B, D_A"):
        doctor.examine(path, "G")
    with pytest.raises(ModelRefused, match=r"want tensors under 'G', got none"):
        doctor.examine(put(small()), "G")


def test_several_repairs_are_all_said(put: Put) -> None:
    sick = {f"module.{key.replace('conv_block', 'block')}": t.double() for key, t in small().items()}
    assert len(mended(put, {"G": sick}).repairs) == 4


def test_counters_that_old_batch_norms_lack_are_not_missed(put: Put) -> None:
    state = {key: t for key, t in small("batch").items() if not key.endswith("num_batches_tracked")}
    net, report = doctor.load_generator(put(state))
    want = published.resnet(state, noise(), 6, "batch")
    torch.testing.assert_close(net.eval()(noise()), want, rtol=0, atol=1e-5)
    assert report.norm == "batch"


def test_safetensors_are_read_whatever_their_order(tmp_path: Path) -> None:
    state = published.resnet_state(3, 1, 4, 9, "batch")
    save_file(state, tmp_path / "G.safetensors")
    net, report = doctor.load_generator(tmp_path / "G.safetensors")
    assert (report.depth, report.outputs) == (9, 1)
    want = published.resnet(state, noise(), 9, "batch")
    torch.testing.assert_close(net.eval()(noise()), want, rtol=0, atol=1e-5)


def test_lines_say_what_a_reader_needs(put: Put) -> None:
    report = doctor.examine(put(published.resnet_state(3, 3, 64, 6, "instance"), "latest_net_G_A.pth"))
    assert report.lines() == [
        "latest_net_G_A.pth: generator, ResNet of 6 blocks, ngf 64",
        "parameters  7,837,699",
        "channels    3 in, 3 out",
        "norm        InstanceNorm without weights, of each picture's own statistics",
        "dropout     none",
        "sides       multiples of 4 pixels, in [-1, 1]",
        "direction   A to B",
        "repair      none needed",
        f"sha256      {report.sha256}",
    ]
    patchgan = doctor.examine(put(published.patchgan_state(6, 8, 3, "batch")))
    assert patchgan.lines()[0].endswith(
        "discriminator, PatchGAN of 3 layers, ndf 8, patches of 70 x 70 pixels"
    )


def test_tensors_that_are_missing_strange_or_of_other_sizes_are_named(put: Put) -> None:
    state = small()
    del state["model.10.conv_block.1.weight"]
    state["model.3.weight"] = torch.ones(4)
    state["model.4.weight"] = torch.ones(8, 4, 5, 5)
    with pytest.raises(ModelRefused) as refused:
        doctor.examine(put(state))
    assert str(refused.value) == (
        "latest_net_G.pth: want the tensors of a generator, ResNet of 6 blocks, ngf 4, got them without "
        "model.10.conv_block.1.weight; with model.3.weight; with other sizes of model.4.weight"
    )


def test_every_tensor_counts(put: Put) -> None:
    """Whichever tensor a file has lost, it is no longer what it was."""
    for state in (
        small("batch"),
        published.unet_state(3, 3, 2, 5, "instance"),
        published.patchgan_state(3, 4, 2, "batch"),
    ):
        for key in state:
            if not key.endswith("num_batches_tracked"):
                with pytest.raises(ModelRefused):
                    doctor.examine(put({k: t for k, t in state.items() if k != key}))


def test_batch_norm_after_biases_is_not_guessed(put: Put) -> None:
    state = small("instance-affine")
    state |= {"model.2.running_mean": torch.zeros(4), "model.2.running_var": torch.ones(4)}
    with pytest.raises(ModelRefused, match=r"weights and running statistics after biases: either"):
        doctor.examine(put(state))


def test_other_networks_are_refused(put: Put) -> None:
    with pytest.raises(ModelRefused, match=r"got 2 tensors: weight, bias"):
        doctor.examine(put(torch.nn.Linear(2, 2).state_dict()))
    with pytest.raises(ModelRefused, match=r"want the tensors of one network by their names, got a list"):
        doctor.examine(put([torch.ones(2)]))
    with pytest.raises(ModelRefused, match=r"got those of 2: G_A, G_B"):
        doctor.examine(put({"G_A": small(), "G_B": small()}))
    with pytest.raises(ModelRefused, match=r"got a dict"):
        doctor.examine(put({}))


def test_shallow_unet_is_refused(put: Put) -> None:
    with pytest.raises(ModelRefused, match=r"U-Net of 4 halvings.* without"):
        doctor.examine(put(published.unet_state(3, 3, 4, 4, "batch")))


def test_no_pickle_is_run(put: Put, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "sprung",)

    for path in (put({"model.1.weight": Trap()}), tmp_path / "plain.pth"):
        (tmp_path / "plain.pth").write_bytes(pickle.dumps(Trap(), protocol=2))
        with pytest.raises(ModelRefused, match=r"want a checkpoint of tensors alone, got .*Unsupported"):
            doctor.examine(path)
    assert not (tmp_path / "sprung").exists()


@given(junk=st.binary(max_size=200), head=st.sampled_from([b"", b"PK\3\4", b"\x80\2", b"\x80\4\x95"]))
def test_junk_is_refused(junk: bytes, head: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("junk")
    for name in ("G.pth", "G.safetensors"):
        (folder / name).write_bytes(head + junk)
        with pytest.raises(ModelRefused, match=r"^G\.\w+: want "):
            doctor.examine(folder / name)


def test_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        doctor.examine(tmp_path / "G.pth")


@pytest.mark.parametrize(
    "state", [small("batch"), published.unet_state(3, 1, 2, 5, "batch")], ids=["resnet", "unet"]
)
def test_a_users_checkpoint_is_served(put: Put, state: State) -> None:
    served = doctor.from_checkpoint(
        put(state), name="horse-to-zebra", device=CPU, side=64, bucket=2, max_batch=4
    )
    assert probe(served)[0] == 2
    report = doctor.examine(put(state))
    assert (served.spec.channels, served.spec.multiple) == ((3, report.outputs), report.multiple)
    assert served.sha256 == report.sha256
    x = noise(side=64)
    want = (
        published.resnet(state, x, 6, "batch")
        if report.architecture == "resnet"
        else published.unet(state, x, 5, "batch")
    )
    got = served(x.add(1).div(2), torch.zeros(2, 0))
    torch.testing.assert_close(got, want.add(1).div(2), rtol=0, atol=1e-5)


def test_a_checkpoint_of_other_than_pictures_is_not_served(put: Put) -> None:
    lab = published.unet_state(1, 2, 2, 5, "batch")  # lightness to two colours
    with pytest.raises(ModelRefused, match=r"channels: want 1 or 3, twice, got \(1, 2\)"):
        doctor.from_checkpoint(put(lab), name="colours", device=CPU)

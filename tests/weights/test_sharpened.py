import pytest
import torch
from command_lines import error_line, load_tool
from small_networks import images, randomize

from sact_det import build_classifier
from sact_det.network.unit import HaltingBranch
from sact_det.weights.sharpened import sharpened
from sact_det.weights.weight_file import load_weights, save_weights

tool = load_tool("convert_weights")


def network(halting, priced=False):
    model = build_classifier((2, 3), halting=halting, base_channels=4, num_classes=5)
    if priced:
        for branch in branches(model):
            branch.read_price(-1.0, 1.0)
            torch.nn.init.constant_(branch.price_weight, 0.7)
    return randomize(model, images(2, 32, 32), halting_bias=-0.5).eval()


def branches(model):
    return [module for module in model.modules() if isinstance(module, HaltingBranch)]


@pytest.mark.parametrize(("halting", "priced"), [("act", False), ("sact", False), ("sact", True)])
def test_all_logits_are_so_many_times_as_large_and_the_rest_stays(halting, priced, monkeypatch):
    before, after = network(halting, priced), network(halting, priced)
    state = sharpened(before.state_dict(), 4)
    after.load_state_dict(state)
    changed = {name for name, value in before.state_dict().items() if not torch.equal(value, state[name])}
    assert changed and all(".halting." in name and "norm" not in name for name in changed)
    monkeypatch.setattr(torch, "sigmoid", lambda logits: logits)
    pairs = list(zip(branches(before), branches(after), strict=True))
    assert len(pairs) == 3
    for own, steeper in pairs:
        own.shift = steeper.shift = 0.4 if priced else 0.0  # within the range: a price, of which logits have a part
        features = torch.randn(2, own.global_conv.in_channels, 6, 7, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            torch.testing.assert_close(steeper(features), 4 * own(features))


def test_features_come_from_the_unit_alone_where_a_position_halts():
    model, x = network("sact"), images(2, 32, 32)
    block = model.get_submodule("block2")
    model.load_state_dict(sharpened(model.state_dict(), 1e6))
    with torch.no_grad():
        x, _ = model.block1(model.stem(x))
        features, ponder = block(x)
        first, *others = block.units
        state = first(x)
        for number, unit in enumerate(others, 2):
            state = torch.where((ponder.num_units >= number)[:, None], unit(state), state)
    assert set(ponder.num_units.unique().tolist()) > {1}
    torch.testing.assert_close(features, state)


@pytest.mark.parametrize("factor", [0, -1, float("nan"), float("inf")])
def test_a_factor_that_is_none_is_refused(factor):
    with pytest.raises(ValueError, match="`factor` must be positive and finite"):
        sharpened(network("sact").state_dict(), factor)


@pytest.mark.parametrize("prices", [{}, {"prices": (0.01, 0.1, 1.0)}])
def test_a_file_keeps_its_description_and_says_what_became_of_it(prices, tmp_path, capsys):
    model = network("sact")
    described = {"units": (2, 3), "halting": "sact", "source": "a test", "shifts": {"block1": -1.5}, **prices}
    save_weights(tmp_path / "own.pth", model.state_dict(), described)
    tool.main(["sharpen", str(tmp_path / "own.pth"), str(tmp_path / "new.pth"), "--factor", "4"])
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'new.pth'}: sha256 ")
    state, metadata = load_weights(tmp_path / "new.pth")
    expected = sharpened(model.state_dict(), 4)
    assert state.keys() == expected.keys() and all(torch.equal(state[name], expected[name]) for name in state)
    assert metadata.pop("source").startswith("a test, from own.pth, sha256 ")
    shift = -1.5 if prices else -6.0  # a price stays what it is: its weight is larger
    assert metadata == {"units": (2, 3), "halting": "sact", "shifts": {"block1": shift}, **prices}


@pytest.mark.parametrize(
    ("halting", "factor", "output", "said"),
    [
        ("none", "4", "new.pth", "own.pth: has no halting branches"),
        ("sact", "nan", "new.pth", "--factor must be positive and finite; got nan"),
        ("sact", "4", "own.pth", "own.pth: would replace what it is made from; choose another name"),
    ],
)
def test_what_cannot_be_sharpened_is_said_in_a_line(tmp_path, capsys, halting, factor, output, said):
    own = tmp_path / "own.pth"
    save_weights(own, network(halting).state_dict(), {"units": (2, 3), "halting": halting})
    before = own.read_bytes()
    assert said in error_line(capsys, tool.main, ["sharpen", str(own), str(tmp_path / output), "--factor", factor])
    assert [path.name for path in tmp_path.iterdir()] == ["own.pth"] and own.read_bytes() == before

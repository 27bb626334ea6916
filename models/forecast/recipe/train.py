"""Trains the forecast LSTM and exports one step of it as ONNX.

`cargo xtask model train forecast` calls this with features that Rust computed; nothing is computed
twice. Deterministic by seed on one machine: one thread, deterministic kernels.

The network looks at one step of a series (features in running deviations of that series) and says
three quantiles for each horizon, counted from the series' level in its deviations. Learnt by pinball
loss over windows of many series, weighted so that every series counts the same and within a series
every request does. Truncated back-propagation: a window's first steps warm the state up unscored.
"""

import argparse
import hashlib
import json
import pathlib
import time

import numpy
import onnx
import torch
from torch import nn

HIDDEN = 32
WINDOW = 192
WARM = 32
BATCH = 64
STEPS = 4000
EVERY = 250
RATE = 3e-3
# Targets farther out are as good as there: the daemon holds outputs within this, too.
FAR = 30.0


class Network(nn.Module):
    """An LSTM and, beside it, a straight line from the features: what an EWMA can do, it can."""

    def __init__(self, mean, deviation, horizons):
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)
        features = len(mean)
        self.lstm = nn.LSTM(features, HIDDEN, batch_first=True)
        self.middle = nn.Linear(HIDDEN + features, horizons)
        self.below = nn.Linear(HIDDEN + features, horizons)
        self.above = nn.Linear(HIDDEN + features, horizons)

    def scaled(self, inputs):
        return ((inputs - self.mean) / self.deviation).clamp(-5.0, 5.0)

    def heads(self, hidden, inputs):
        seen = torch.cat([hidden, inputs], dim=-1)
        middle = self.middle(seen)
        low = middle - nn.functional.softplus(self.below(seen))
        high = middle + nn.functional.softplus(self.above(seen))
        return low, middle, high

    def forward(self, inputs, state=None):
        inputs = self.scaled(inputs)
        hidden, state = self.lstm(inputs, state)
        return torch.stack(self.heads(hidden, inputs), dim=-1), state


class Step(nn.Module):
    """One step for a batch of series, in plain operators: features and state in, both out."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, features, state):
        lstm = self.network.lstm
        inputs = self.network.scaled(features)
        hidden, cell = state[:, :HIDDEN], state[:, HIDDEN:]
        gates = (
            inputs @ lstm.weight_ih_l0.t()
            + hidden @ lstm.weight_hh_l0.t()
            + (lstm.bias_ih_l0 + lstm.bias_hh_l0)
        )
        take = torch.sigmoid(gates[:, :HIDDEN])
        keep = torch.sigmoid(gates[:, HIDDEN : 2 * HIDDEN])
        new = torch.tanh(gates[:, 2 * HIDDEN : 3 * HIDDEN])
        show = torch.sigmoid(gates[:, 3 * HIDDEN :])
        cell = keep * cell + take * new
        hidden = show * torch.tanh(cell)
        low, middle, high = self.network.heads(hidden, inputs)
        # Horizon by horizon: low, middle, high.
        columns = [part[:, at : at + 1] for at in range(middle.shape[1]) for part in (low, middle, high)]
        return torch.cat(columns, dim=1), torch.cat([hidden, cell], dim=1)


class Series:
    """One series: features, what came at each horizon in deviations, and what that weighs."""

    def __init__(self, entry, rows, ahead):
        features = rows.shape[1] - 4
        level, scale, rate = rows[:, features], rows[:, features + 1], rows[:, features + 3]
        self.name, self.step, self.learn = entry["name"], entry["step"], entry["learn"]
        self.features = torch.from_numpy(numpy.ascontiguousarray(rows[:, :features]))
        targets = numpy.full((len(rows), len(ahead)), numpy.nan, dtype=numpy.float32)
        for at, steps in enumerate(ahead):
            targets[:-steps, at] = (rate[steps:] - level[:-steps]) / scale[:-steps]
        self.targets = torch.from_numpy(numpy.clip(targets, -FAR, FAR))
        weight = scale / scale[: self.learn].mean()
        self.weight = torch.from_numpy(numpy.minimum(weight, 5.0).astype(numpy.float32))


def read(folder):
    index = json.loads((folder / "index.json").read_text())
    numbers = (folder / "features.f32").read_bytes()
    if hashlib.sha256(numbers).hexdigest() != index["sha256"]:
        raise SystemExit(f"{folder}: features.f32 is not what index.json describes; export it again")
    width = len(index["schema"]["names"]) + 4
    rows = numpy.frombuffer(numbers, dtype="<f4").reshape(-1, width)
    series = []
    for entry in index["series"]:
        first = entry["offset"] // 4 // width
        series.append(Series(entry, rows[first : first + entry["rows"]], index["ahead"]))
    return index, [one for one in series if one.learn > 3 * WINDOW or one.learn > 0]


def pinball(said, came, quantiles):
    """Loss by step and horizon; where nothing came it is zero."""
    off = torch.nan_to_num(came).unsqueeze(-1) - said
    loss = torch.maximum(quantiles * off, (quantiles - 1.0) * off).mean(-1)
    return torch.where(torch.isnan(came), torch.zeros_like(loss), loss)


def share_of(series):
    """How often a window is taken from a series: minutes above all, as the daemon steps so."""
    if series.step != 60:
        return 0.35
    return 0.5 if "@" in series.name else 1.0


def draw(series, odds, chance):
    """A batch of windows from what may be learnt from."""
    features, targets, weights = [], [], []
    for at in chance.choice(len(series), size=BATCH, p=odds):
        one = series[at]
        span = min(WINDOW, one.learn)
        first = int(chance.integers(0, one.learn - span + 1))
        cut = slice(first, first + span)
        last = max(one.learn - first, 0)
        came = one.targets[cut].clone()
        # What comes after the days to learn from is not to be learnt from.
        for horizon, steps in enumerate(AHEAD):
            came[max(last - steps, 0) :, horizon] = float("nan")
        lack = WINDOW - span
        features.append(nn.functional.pad(one.features[cut], (0, 0, 0, lack)))
        targets.append(nn.functional.pad(came, (0, 0, 0, lack), value=float("nan")))
        weights.append(nn.functional.pad(one.weight[cut], (0, lack)))
    return torch.stack(features), torch.stack(targets), torch.stack(weights)


@torch.no_grad()
def choose(network, series, quantiles):
    """Mean loss over the days to choose by, every series of minutes counting the same."""
    losses = []
    for one in series:
        if one.step != 60:
            continue
        first = max(one.learn - 500, 0)
        said, _ = network(one.features[None, first:])
        loss = pinball(said[0], one.targets[first:], quantiles) * one.weight[first:, None]
        losses.append(loss[one.learn - first :].mean().item())
    return float(numpy.mean(losses))


def usual(series):
    """Between which values each feature mostly was."""
    all_rows = torch.cat([one.features[: one.learn] for one in series if one.step == 60])
    low, high = numpy.quantile(all_rows.numpy(), [0.002, 0.998], axis=0)
    return [[float(a), float(b)] for a, b in zip(low, high)]


def train(series, quantiles, seed):
    torch.manual_seed(seed)
    chance = numpy.random.default_rng(seed)
    rows = torch.cat([one.features[: one.learn] for one in series])
    mean, deviation = rows.mean(0), rows.std(0).clamp(min=1e-3)
    network = Network(mean, deviation, len(AHEAD))
    odds = numpy.array([share_of(one) for one in series])
    odds /= odds.sum()
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=RATE, total_steps=STEPS)
    best, begun = (float("inf"), None), time.time()
    for step in range(1, STEPS + 1):
        features, targets, weights = draw(series, odds, chance)
        said, _ = network(features)
        loss = (pinball(said, targets, quantiles) * weights[..., None])[:, WARM:].mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % EVERY == 0:
            chosen = choose(network, series, quantiles)
            print(f"step {step}: {loss.item():.4f} learnt, {chosen:.4f} on the days to choose by, "
                  f"{time.time() - begun:.0f} s", flush=True)
            if chosen < best[0]:
                best = (chosen, {name: value.clone() for name, value in network.state_dict().items()})
    network.load_state_dict(best[1])
    return network, best[0]


def export(network, path):
    step = Step(network).eval()
    features = torch.zeros(2, len(network.mean))
    state = torch.zeros(2, 2 * HIDDEN)
    axes = {name: {0: "series"} for name in ("features", "state", "quantiles", "next")}
    torch.onnx.export(
        step, (features, state), str(path), dynamo=False, opset_version=17,
        input_names=["features", "state"], output_names=["quantiles", "next"], dynamic_axes=axes,
    )
    onnx.checker.check_model(onnx.load(str(path)))


def golden(network, series, steps=24):
    """Inputs and outputs of one series from a state of zero."""
    step = Step(network).eval()
    features = series[0].features[200 : 200 + steps]
    state = torch.zeros(1, 2 * HIDDEN)
    outputs = []
    with torch.no_grad():
        for row in features:
            said, state = step(row[None], state)
            outputs.append(said[0].tolist())
    return {"inputs": features.tolist(), "outputs": outputs}


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--features", type=pathlib.Path, required=True)
    arguments.add_argument("--out", type=pathlib.Path, required=True)
    arguments.add_argument("--seed", type=int, default=1)
    arguments = arguments.parse_args()
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    index, series = read(arguments.features)
    global AHEAD
    AHEAD = index["ahead"]
    quantiles = torch.tensor(index["quantiles"])
    network, chosen = train(series, quantiles, arguments.seed)
    out = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    export(network, out / "model.onnx")
    described = {
        "schema": index["schema"],
        "ahead": index["ahead"],
        "quantiles": index["quantiles"],
        "state": 2 * HIDDEN,
        "usual": usual(series),
    }
    (out / "features.json").write_text(json.dumps(described, indent=1) + "\n")
    (out / "golden.json").write_text(json.dumps(golden(network, series)) + "\n")
    metrics = {
        "seed": arguments.seed,
        "data_sha256": index["sha256"],
        "versions": {"torch": torch.__version__, "numpy": numpy.__version__, "onnx": onnx.__version__},
        "steps": STEPS,
        "loss_on_the_days_to_choose_by": chosen,
    }
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")


if __name__ == "__main__":
    main()

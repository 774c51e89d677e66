from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from grmp_hf.errors import GRMPError
from grmp_hf.training.episodes import Episode
from grmp_hf.training.gradients import ChannelGradient, named_gradients
from grmp_hf.training.meta_learning import (
    ALGORITHMS,
    InnerLoop,
    InnerState,
    LongRun,
    fomaml,
    inner_loop,
    maml,
    reptile,
)
from grmp_hf.training.objectives import Batch, Term

MakeAdapted = Callable[..., PeftModel]


def pictures(count: int, seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(count, 3, 16, 16, generator=generator, dtype=torch.float64)
    return {"pixel_values": pixels, "labels": torch.rand(count, generator=generator, dtype=torch.float64)}


def episode() -> Episode:
    return {
        "task": "noise",
        "support": [pictures(3, 1), pictures(2, 2)],
        "query": [pictures(2, 3), pictures(1, 4)],
    }


def joined(batches: list[Batch]) -> Batch:
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def trained(model: PeftModel) -> dict[str, Tensor]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def loss_under(model: PeftModel) -> Callable[[dict[str, Tensor], Batch], Tensor]:
    return lambda parameters, batch: functional_call(model, dict(parameters), (), dict(batch)).loss


def relative(ours: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Largest relative error of a tensor."""
    assert ours.keys() == expected.keys()
    pairs = [(ours[name], expected[name]) for name in expected if expected[name].numel()]
    return max(((got - value).norm() / value.norm()).item() for got, value in pairs)


@pytest.mark.parametrize(
    "inner", [InnerLoop(1, 0.3), InnerLoop(3, 0.3), InnerLoop(2, 0.01, "adam")], ids=lambda inner: str(inner)
)
def test_maml_is_the_slope_of_the_adapted_loss(make_adapted: MakeAdapted, inner: InnerLoop) -> None:
    model, given = make_adapted(anchor_residuals=True).double(), episode()
    theta = {name: parameter.detach() for name, parameter in trained(model).items()}
    loss_of, query = loss_under(model), joined(given["query"])
    with sdpa_kernel(SDPBackend.MATH):
        result = maml(loss_of, theta, given, inner)["task"]

    def adapted_loss(parameters: dict[str, Tensor]) -> Tensor:
        batches = [given["support"][step % 2] for step in range(inner.steps)]
        leaves = {name: parameter.clone().requires_grad_() for name, parameter in parameters.items()}
        phi = inner_loop(loss_of, InnerState(leaves), batches, inner).parameters
        with torch.no_grad():
            return loss_of(phi, query)

    torch.testing.assert_close(result.loss, adapted_loss(theta))
    torch.manual_seed(0)
    ways = [{name: torch.randn_like(theta[name])} for name in theta if theta[name].numel()]
    ways += [{name: torch.randn_like(value) for name, value in theta.items()} for _ in range(3)]
    step = 1e-5
    for way in ways:
        length = torch.cat([part.flatten() for part in way.values()]).norm()
        way = {name: part / length for name, part in way.items()}
        ahead, behind = (
            adapted_loss({name: value + sign * step * way.get(name, 0.0) for name, value in theta.items()})
            for sign in (1, -1)
        )
        slope = sum((result.gradients[name] * part).sum() for name, part in way.items())
        whole = torch.stack([result.gradients[name].norm() for name in way]).norm()
        assert abs((ahead - behind) / (2 * step) - slope) <= 1e-5 * whole, list(way)


def stepped(model: PeftModel, batches: list[Batch], optimizer: torch.optim.Optimizer) -> PeftModel:
    """A model after plain steps of one of torch's optimizers."""
    for batch in batches:
        optimizer.zero_grad()
        torch.autograd.backward(model(**batch).loss)
        optimizer.step()
    return model


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_fomaml_is_an_explicit_loop(make_adapted: MakeAdapted, optimizer: Any) -> None:
    model, given = make_adapted().double(), episode()
    ours = fomaml(loss_under(model), trained(model), given, InnerLoop(3, 0.05, optimizer))["task"]
    clone = copy.deepcopy(model)
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[optimizer]
    stepped(clone, [*given["support"], given["support"][0]], kind(trained(clone).values(), lr=0.05))
    clone.zero_grad()
    loss = clone(**joined(given["query"])).loss
    torch.autograd.backward(loss)
    assert relative(ours.gradients, {name: parameter.grad for name, parameter in trained(clone).items()}) <= 1e-6
    torch.testing.assert_close(ours.loss, loss.detach())
    assert ours.weight == 1


def test_reptile_is_an_explicit_loop(make_adapted: MakeAdapted) -> None:
    model, given = make_adapted().double(), episode()
    ours = reptile(loss_under(model), trained(model), given, InnerLoop(3, 0.05))["task"]
    clone = copy.deepcopy(model)
    mean = {name: torch.zeros_like(parameter) for name, parameter in trained(clone).items()}
    for batch in (given["support"][0], given["query"][0], given["support"][1]):
        clone.zero_grad()
        torch.autograd.backward(clone(**batch).loss)
        with torch.no_grad():
            for name, parameter in trained(clone).items():
                mean[name] += parameter.grad / 3
                parameter -= 0.05 * parameter.grad
    assert relative(ours.gradients, mean) <= 1e-6
    torch.testing.assert_close(ours.loss, clone(**joined(given["query"])).loss.detach())


def test_the_inner_adam_is_torchs(make_adapted: MakeAdapted) -> None:
    model = make_adapted().double()
    batches = [pictures(2, seed) for seed in range(6)]
    start = InnerState({name: p.detach() for name, p in trained(model).items()})
    half = inner_loop(loss_under(model), start, batches[:3], InnerLoop(3, 0.01, "adam"))
    ours = inner_loop(loss_under(model), half, batches[3:], InnerLoop(3, 0.01, "adam")).parameters
    clone = copy.deepcopy(model)
    stepped(clone, batches, torch.optim.Adam(trained(clone).values(), lr=0.01))
    for name, parameter in trained(clone).items():
        torch.testing.assert_close(ours[name], parameter.detach(), atol=1e-12, rtol=0)


def test_the_inner_loop_leaves_the_meta_parameters_alone(make_adapted: MakeAdapted) -> None:
    model = make_adapted().double()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    with sdpa_kernel(SDPBackend.MATH):
        for algorithm in (*ALGORITHMS.values(), LongRun()):
            algorithm(loss_under(model), trained(model), episode(), InnerLoop(2, 0.1))
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("algorithm", [maml, fomaml])
def test_no_inner_steps_give_the_plain_gradient(
    make_adapted: MakeAdapted, algorithm: Callable[..., dict[str, ChannelGradient]]
) -> None:
    model, given = make_adapted().double(), episode()
    given["query"] = [joined(given["query"])]
    ours = algorithm(loss_under(model), trained(model), given, InnerLoop(0, 0.1))["task"]
    plain = named_gradients(model(**given["query"][0]).loss, trained(model))
    assert all(torch.equal(ours.gradients[name], plain[name]) for name in plain)


def test_reptile_without_inner_steps_goes_no_way(make_adapted: MakeAdapted) -> None:
    model = make_adapted().double()
    with pytest.raises(GRMPError, match="at least 1 inner step for reptile, got 0"):
        reptile(loss_under(model), trained(model), episode(), InnerLoop(0, 0.1))


def test_orders_are_equal_when_the_loss_is_linear(make_adapted: MakeAdapted) -> None:
    torch.manual_seed(0)
    theta = {"a": torch.randn(4, dtype=torch.float64), "b": torch.randn(2, 3, dtype=torch.float64)}

    def linear(parameters: dict[str, Tensor], batch: Batch) -> Tensor:
        return sum((parameters[name] * batch[name].sum(0)).sum() for name in parameters)

    def rows() -> Batch:
        return {name: torch.randn(3, *value.shape, dtype=torch.float64) for name, value in theta.items()}

    given: Episode = {"task": "linear", "support": [rows()], "query": [rows()]}
    for optimizer in ("sgd", "adam"):
        inner = InnerLoop(3, 0.1, optimizer)
        first, second = (algorithm(linear, theta, given, inner)["task"] for algorithm in (fomaml, maml))
        assert all(torch.equal(first.gradients[name], second.gradients[name]) for name in theta)
    model, inner = make_adapted().double(), InnerLoop(3, 0.3)
    with sdpa_kernel(SDPBackend.MATH):
        bent = [
            algorithm(loss_under(model), trained(model), episode(), inner)["task"].gradients
            for algorithm in (fomaml, maml)
        ]
    assert relative(*bent) > 1e-2


def test_adam_can_be_differentiated_where_a_gradient_vanishes() -> None:
    def loss_of(parameters: dict[str, Tensor], batch: Batch) -> Tensor:
        return (parameters["used"] - batch["x"]).square().mean() + 0 * parameters["idle"].sum()

    theta = {name: torch.ones(2, dtype=torch.float64) for name in ("used", "idle")}
    batch = {"x": torch.zeros(1, 2, dtype=torch.float64)}
    given: Episode = {"task": "", "support": [batch], "query": [batch]}
    result = maml(loss_of, theta, given, InnerLoop(2, 0.1, "adam"))["task"]
    assert result.gradients["used"].isfinite().all() and result.gradients["used"].all()
    assert result.gradients["idle"].tolist() == [0, 0]


@pytest.mark.parametrize("algorithm", ["fomaml", "maml", "reptile"])
def test_the_semantic_gradient_is_that_of_the_query_after_adaptation(algorithm: str) -> None:
    """With quadratic losses everything is known in closed form: phi = theta - K alpha-steps towards the support."""
    theta = {"w": torch.tensor([1.0, -2.0], dtype=torch.float64)}
    support, query, scene = (torch.tensor(v, dtype=torch.float64) for v in ([0.5, 0.0], [2.0, 1.0], [-1.0, 3.0]))

    def loss_of(parameters: dict[str, Tensor], batch: Batch) -> Tensor:
        return 0.5 * (parameters["w"] - batch["x"]).square().sum()

    def judge(parameters: dict[str, Tensor], batch: Batch) -> dict[str, Term]:
        semantic = 0.5 * (parameters["w"] - scene).square().sum()
        return {"quality": Term(loss_of(parameters, batch), 1), "semantic": Term(semantic, 1)}

    given: Episode = {"task": "", "support": [{"x": support[None]}], "query": [{"x": query[None]}]}
    result = ALGORITHMS[algorithm](loss_of, theta, given, InnerLoop(1, 0.25), judge)
    phi = theta["w"] - 0.25 * (theta["w"] - support)
    through = 0.75 if algorithm == "maml" else 1.0
    torch.testing.assert_close(result["semantic"].gradients["w"], through * (phi - scene))
    expected = theta["w"] - support if algorithm == "reptile" else through * (phi - query)
    torch.testing.assert_close(result["quality"].gradients["w"], expected)
    torch.testing.assert_close(result["quality"].loss, 0.5 * (phi - query).square().sum())


# The reference's long run ---------------------------------------------------------------------------------------------


def test_the_long_run_is_never_set_back(make_adapted: MakeAdapted) -> None:
    """Support and query batches in turn, moments kept over the first two episodes and begun anew in the third."""
    model, run, inner = make_adapted().double(), LongRun(), InnerLoop(1, 1e-2, "adam")
    episodes = [episode(), episode(), {**episode(), "fresh_optimizer": True}]
    episodes[1]["query"] = [pictures(2, 9)]
    clone = copy.deepcopy(model)
    optimizer = torch.optim.Adam(trained(clone).values(), lr=1e-2)
    for given in episodes:
        if given.get("fresh_optimizer"):
            optimizer = torch.optim.Adam(trained(clone).values(), lr=1e-2)
        query = given["query"] * 2
        stepped(clone, [given["support"][0], query[0], given["support"][1], query[1]], optimizer)
        ours = run(loss_under(model), trained(model), given, inner)["task"]
        for name, parameter in trained(clone).items():
            way = trained(model)[name].detach() - parameter.detach()
            torch.testing.assert_close(ours.gradients[name], way, atol=1e-12, rtol=0)


def test_the_long_run_goes_on_from_its_state(make_adapted: MakeAdapted) -> None:
    model, inner = make_adapted().double(), InnerLoop(1, 1e-2, "adam")
    whole, begun, resumed = LongRun(), LongRun(), LongRun()
    assert whole.state_dict() == {}
    for run in (whole, begun):
        run(loss_under(model), trained(model), episode(), inner)
    resumed.load_state_dict(begun.state_dict())
    ends = [run(loss_under(model), trained(model), episode(), inner)["task"].gradients for run in (whole, resumed)]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    resumed.load_state_dict({})
    assert resumed.state is None

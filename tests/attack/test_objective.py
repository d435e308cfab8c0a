"""What the attacker wants: the sign, where it counts, what is won, and which iterate is better."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from attack.stand_ins import ORGANS, curved, normal, organs

from medadv.attack.budget import Budget, Unit
from medadv.attack.loop import Attack
from medadv.attack.losses import LOSSES, cross_entropy, logit_margin
from medadv.attack.objective import Away, Towards, dice_lost, dice_won, share_won
from medadv.attack.relabel import Draw, Relabel, Turn, erase
from medadv.attack.rng import Rng
from medadv.attack.steps import Plain
from medadv.attack.targets import Targets
from medadv.attack.threat import Linf
from medadv.errors import ConfigError, VictimError
from medadv.labels import BRATS_2018
from medadv.victims.head import Sigmoid, Softmax, Voxels

SHAPE = (2, 6, 5)


def asked(relabel: Relabel, targets: Voxels) -> Targets:
    """What a relabelling that needs no answer asks for."""
    return relabel(targets, torch.zeros(0, 0, 0), Rng.seeded(0, len(targets.truth)))


def attacked(objective: Away | Towards, steps: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of a curved victim before and after an attack."""
    victim, x = curved(), normal((2, 2, 6, 5))
    attack = Attack(Linf(Budget(0.3, Unit.STORED), None), objective, Plain(), steps, keep="last")
    found = attack(victim, x, organs(SHAPE))
    with torch.no_grad():
        return victim(x), victim(found.x)


@pytest.mark.parametrize("loss", LOSSES)
def test_away_raises_the_loss_of_the_truth(loss: str) -> None:
    before, after = attacked(Away(LOSSES[loss]))
    targets = Voxels.of(Softmax(ORGANS), organs(SHAPE))
    assert (LOSSES[loss](after, targets) > LOSSES[loss](before, targets)).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_towards_lowers_the_loss_of_the_wanted_labels(loss: str) -> None:
    wanted = organs(SHAPE, seed=9)
    before, after = attacked(Towards(Draw(wanted, torch.ones_like(wanted, dtype=torch.bool)), LOSSES[loss]))
    targets = Voxels.of(Softmax(ORGANS), wanted)
    assert (LOSSES[loss](after, targets) < LOSSES[loss](before, targets)).all()


def test_towards_a_map_is_not_away_from_it() -> None:
    """A wanted map flagged untargeted is another attack: the sign is the whole difference."""
    raw, targets = normal((2, 3, 6, 5)), Voxels.of(Softmax(ORGANS), organs(SHAPE))
    everywhere = torch.ones(SHAPE, dtype=torch.bool)
    towards = Towards(Draw(organs(SHAPE), everywhere)).prepare(raw, targets, Rng.seeded(0, 2))(raw, 0.0)
    away = Away().prepare(raw, targets, Rng.seeded(0, 2))(raw, 0.0)
    torch.testing.assert_close(towards.value, -away.value)
    torch.testing.assert_close(towards.merit, 1 - away.merit)


@pytest.mark.parametrize("loss", LOSSES)
def test_erasing_counts_in_the_region_alone(loss: str) -> None:
    truth = organs(SHAPE)
    targets = Voxels.of(Softmax(ORGANS), truth)
    raw = normal((2, 3, 6, 5)).requires_grad_()
    goal = Towards(erase("spleen"), LOSSES[loss]).prepare(raw.detach(), targets, Rng.seeded(0, 2))
    (gradient,) = torch.autograd.grad(goal(raw, 0.0).value.sum(), raw)
    assert torch.equal((gradient != 0).any(1), truth == 5)
    assert (gradient[:, 0][truth == 5] > 0).all() or loss != "cross entropy"  # background's logit is to rise


def test_turning_wants_the_other_tissue() -> None:
    truth = organs(SHAPE)
    wanted = asked(Turn("liver", "spleen"), Voxels.of(Softmax(ORGANS), truth))
    assert torch.equal(wanted.where, truth == 2)
    assert (wanted.labels[truth == 2] == 2).all()  # the class of the spleen, whose number is 5


def test_a_union_can_be_erased() -> None:
    truth = organs(SHAPE)
    wanted = asked(erase("both"), Voxels.of(Softmax(ORGANS), truth))
    assert torch.equal(wanted.where, truth != 0)
    assert (wanted.labels[wanted.where] == 0).all()


def test_drawing_counts_where_it_says_and_not_on_void_targets() -> None:
    where, valid = torch.rand(SHAPE) < 0.5, torch.rand(SHAPE) < 0.5
    targets = Voxels.of(Softmax(ORGANS), organs(SHAPE)).within(valid)
    drawn = asked(Draw(organs(SHAPE, seed=4), where), targets)
    assert torch.equal(drawn.where, where & valid)
    assert torch.equal(drawn.labels, ORGANS.classes(organs(SHAPE, seed=4)))


def test_a_region_head_is_drawn_and_erased_region_by_region() -> None:
    truth = torch.tensor([[0, 1, 2, 4]])
    targets = Voxels.of(Sigmoid(BRATS_2018, ("WT", "ET")), truth)
    gone = asked(erase("ET"), targets)
    assert gone.where.tolist() == [[[False, False, False, True]] * 2]
    assert gone.labels[gone.where].tolist() == [0, 0]
    turned = asked(Turn("ET", "oedema"), targets)
    assert turned.labels[turned.where].tolist() == [1, 0]  # still tumour, no longer enhancing
    drawn = asked(Draw(torch.tensor([[4, 4, 0, 0]]), torch.tensor([[True, False, False, True]])), targets)
    assert drawn.labels.tolist() == [[[1, 1, 0, 0], [1, 1, 0, 0]]]
    assert drawn.where.tolist() == [[[True, False, False, True]] * 2]


def test_unknown_regions_and_numbers_are_refused() -> None:
    targets = Voxels.of(Softmax(ORGANS), organs(SHAPE))
    with pytest.raises(ConfigError, match="'kidney' is no region"):
        asked(erase("kidney"), targets)
    with pytest.raises(ConfigError, match="'kidney' is no region"):
        asked(Turn("liver", "kidney"), targets)
    strange = organs(SHAPE).masked_fill(organs(SHAPE) == 2, 3)  # between two known numbers
    with pytest.raises(VictimError, match="does not know") as refusal:
        asked(Draw(strange, torch.ones(SHAPE, dtype=torch.bool)), targets)
    assert refusal.value.details["got"] == [3]


def test_won_and_merit_by_hand() -> None:
    truth = torch.tensor([[0, 0, 2, 5]])
    decided = torch.tensor([[0, 2, 5, 5]])
    raw = torch.nn.functional.one_hot(ORGANS.classes(decided), 3).movedim(-1, 1).double()
    targets = Voxels.of(Softmax(ORGANS), truth)
    away = Away().prepare(raw, targets, Rng.seeded(0, 1))(raw, 0.0)
    assert away.merit.item() == 0.5
    assert not away.done
    towards = Towards(Turn("liver", "spleen")).prepare(raw, targets, Rng.seeded(0, 1))(raw, 0.0)
    assert towards.merit.item() == 1
    assert towards.done
    lost = Away(merit=dice_lost).prepare(raw, targets, Rng.seeded(0, 1))(raw, 0.0).merit
    assert lost.item() == pytest.approx(1 - (0 + 2 / 3) / 2)  # liver missed, spleen 2 · 1 / (2 + 1)


def test_dice_lost_of_regions_by_hand() -> None:
    head = Sigmoid(BRATS_2018, ("WT", "ET"))
    raw = head.logits(torch.tensor([[[1.0, 1.0, -1.0, 1.0], [-1.0, -1.0, -1.0, 1.0]]]))
    targets = Voxels.of(head, torch.tensor([[0, 2, 2, 4]]))
    lost = dice_lost(torch.ones_like(targets.where), raw, targets)
    assert lost.item() == pytest.approx(1 - (4 / 6 + 1) / 2)


def test_both_empty_loses_nothing() -> None:
    targets = Voxels.of(Softmax(ORGANS), torch.zeros(1, 4, dtype=torch.int64))
    raw = torch.zeros(1, 3, 4)
    raw[:, 0] = 1
    assert dice_lost(torch.ones(1, 4, dtype=torch.bool), raw, targets).item() == 0
    raw[:, 1, 0] = 2  # one voxel of liver invented
    assert dice_lost(torch.ones(1, 4, dtype=torch.bool), raw, targets).item() == 0.5


def test_a_targeted_attack_keeps_what_is_nearest_to_the_wanted_labels() -> None:
    wanted = organs(SHAPE, seed=9)
    draw = Draw(wanted, torch.ones_like(wanted, dtype=torch.bool))
    attack = Attack(Linf(Budget(0.3, Unit.STORED), None), Towards(draw, merit=dice_won), Plain(0.5), 6)
    victim, x = curved(), normal((2, 2, 6, 5))
    found = attack(victim, x, organs(SHAPE))
    targets = Voxels.of(Softmax(ORGANS), wanted)
    with torch.no_grad():
        dice = 1 - dice_lost(targets.where, victim(found.x), targets)
        before = 1 - dice_lost(targets.where, victim(x), targets)
    assert torch.equal(found.merit, dice)
    assert (dice > before).all()
    with pytest.raises(ConfigError, match="farthest from the labels it wants"):
        Towards(draw, merit=dice_lost)


def test_what_is_won_already_is_not_pushed_again() -> None:
    truth, raw = organs(SHAPE), normal((2, 3, 6, 5)).requires_grad_()
    targets = Voxels.of(Softmax(ORGANS), truth)
    goal = Away(logit_margin, pending=True).prepare(raw.detach(), targets, Rng.seeded(0, 2))
    (gradient,) = torch.autograd.grad(goal(raw, 0.0).value.sum(), raw)
    right = ORGANS.stored(raw.argmax(1)) == truth
    assert right.any()
    assert not right.all()
    assert torch.equal((gradient != 0).any(1), right)


def test_an_empty_region_is_won_at_once_and_nothing_moves() -> None:
    truth = torch.zeros(SHAPE, dtype=torch.int64)
    attack = Attack(Linf(Budget(0.3, Unit.STORED)), Towards(erase("spleen")), Plain(), steps=4)
    x = normal((2, 2, 6, 5))
    found = attack(curved(), x, truth)  # and no warning about its zero gradients
    assert torch.equal(found.x, x)
    assert found.merit.tolist() == [1, 1]
    assert found.trace["merit"].tolist() == [[1, 1]]
    assert found.zero_gradient_share.tolist() == [0, 0]
    last = replace(attack, keep="last")(curved(), x, truth)
    assert torch.equal(last.x, x)


def test_a_goal_for_a_part_of_the_batch() -> None:
    raw, targets = normal((2, 3, 6, 5)), Voxels.of(Softmax(ORGANS), organs(SHAPE))
    goal = Away(cross_entropy, share_won).prepare(raw, targets, Rng.seeded(0, 2))
    whole, part = goal(raw, 0.0), goal.take(torch.tensor([1]))(raw[1:], 0.0)
    torch.testing.assert_close(part.value, whole.take(torch.tensor([1])).value)
    torch.testing.assert_close(part.merit, whole.merit[1:])

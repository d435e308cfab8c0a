"""What a network is to learn: a module from a batch to a loss. The training loop never learns which one it runs.

Every lesson holds the bare network. ``Plain`` learns the labels, ``Hardened`` and ``Trades`` attack what they learn
from, ``Distilled`` learns from a teacher. Adversarial training on a fixed set is no lesson but more examples:
``crops.Mixed``.

Batch norm: an attack inside a lesson meets the network in evaluation mode, with the statistics it is deployed with, and
leaves them alone. What is learnt from goes through the network in training mode in one pass, attacked and clean crops
together, so that the running statistics are those of the mixture.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medadv.attack.losses import Loss, dice_cross_entropy
from medadv.attack.objective import Apart
from medadv.attack.victim import held_still
from medadv.defense.crops import Batch, check_share
from medadv.defense.inner import InnerAttack, divergence
from medadv.errors import ConfigError
from medadv.victims.head import Head, Voxels
from medadv.victims.segmentation import Segmenter

Lesson = Callable[[Batch], Float[Tensor, ""]]


class Plain(nn.Module):
    """The labels as they are: Dice and cross entropy on clean crops.

    Args:
        network: what learns.
        head: what its channels mean.
        loss: how wrong it is.
        temperature: divides the logits in the loss: the lesson of a distillation's teacher, whose network is
            ``Scaled(network, temperature)``.

    Raises:
        ConfigError: a temperature that is not positive.
    """

    def __init__(
        self, network: nn.Module, head: Head, loss: Loss = dice_cross_entropy, temperature: float = 1.0
    ) -> None:
        super().__init__()
        check_temperature(temperature)
        self.network = network
        self.head = head
        self.loss = loss
        self.temperature = temperature

    def forward(self, batch: Batch) -> Float[Tensor, ""]:
        """The mean loss of a batch."""
        logits = self.head.logits(self.network(batch.z))
        if self.temperature != 1:
            logits = logits / self.temperature
        losses: Tensor = self.loss(logits, Voxels.of(self.head, batch.truth))
        return torch.mean(losses)


class Hardened(nn.Module):
    """The labels of crops that are attacked as they are learnt from: adversarial training on line (Madry et al. 2018,
    arXiv:1706.06083; with one step Goodfellow et al. 2015, arXiv:1412.6572).

    Args:
        network: what learns, and is attacked.
        head: what its channels mean.
        attack: how crops are attacked.
        share: of the crops that are attacked; which ones, each crop's own random stream says.
        loss: how wrong the network is.

    Raises:
        ConfigError: a share outside [0, 1].
    """

    def __init__(
        self,
        network: nn.Module,
        head: Head,
        attack: InnerAttack,
        share: float = 1.0,
        loss: Loss = dice_cross_entropy,
    ) -> None:
        super().__init__()
        check_share(share)
        self.network = network
        self.head = head
        self.attack = attack
        self.share = share
        self.loss = loss

    def forward(self, batch: Batch) -> Float[Tensor, ""]:
        """The mean loss of a batch, some or all of it attacked.

        Raises:
            ConfigError: crops without a radius.
        """
        z = batch.z
        draws = batch.streams.fork("share").uniform(torch.empty(len(z)))
        where = (draws < self.share).nonzero().flatten().to(z.device)
        if len(where):
            z = z.index_copy(0, where, self.attack(self.network, self.head, batch.take(where)))
        losses: Tensor = self.loss(self.head.logits(self.network(z)), Voxels.of(self.head, batch.truth))
        return torch.mean(losses)


class Trades(nn.Module):
    """The labels of clean crops, and the same answer for attacked ones: loss(clean) + β · KL(clean ‖ attacked) (Zhang
    et al. 2019, arXiv:1901.08573, eq. 5), the divergence a mean over targets. The attack ascends the same divergence.

    With β = 0 nothing is attacked, and this is ``Plain``.

    Args:
        network: what learns, and is attacked.
        head: what its channels mean.
        attack: how crops are attacked; from a random start, since the divergence has no slope at the clean crop.
        beta: what an equal answer is worth.
        loss: how wrong the network is about the labels.

    Raises:
        ConfigError: β is negative or not finite, or an attack that starts at the clean crop.
    """

    def __init__(
        self, network: nn.Module, head: Head, attack: InnerAttack, beta: float = 6.0, loss: Loss = dice_cross_entropy
    ) -> None:
        super().__init__()
        if not (math.isfinite(beta) and beta >= 0):
            raise ConfigError("the weight of equal answers is not negative", got=beta, expected="for example 6")
        if attack.start == "clean":
            raise ConfigError(
                "TRADES attacks from a random start",
                got='start="clean"',
                cause="its divergence has no slope at the clean crop: nothing would ever be attacked",
                advice='InnerAttack(start="random")',
            )
        self.network = network
        self.head = head
        self.attack = attack
        self.beta = beta
        self.loss = loss

    def forward(self, batch: Batch) -> Float[Tensor, ""]:
        """The mean loss of a batch.

        Raises:
            ConfigError: crops without a radius.
        """
        targets = Voxels.of(self.head, batch.truth)
        if self.beta == 0:
            plain: Tensor = self.loss(self.head.logits(self.network(batch.z)), targets)
            return torch.mean(plain)
        attacked = self.attack(self.network, self.head, batch, Apart())
        clean, moved = self.head.logits(self.network(torch.cat([batch.z, attacked]))).chunk(2)
        apart = divergence(clean, moved, targets) / targets.where.flatten(1).sum(1).clamp(min=1)
        losses: Tensor = self.loss(clean, targets) + self.beta * apart
        return torch.mean(losses)


class Distilled(nn.Module):
    """A teacher's soft labels: defensive distillation (Papernot et al. 2016, arXiv:1511.04508), voxel by voxel.

    Student and teacher are each ``Scaled(network, T)``, whose logits are T times what its layers say, and are divided
    by T here: the loss sees the layers' own scale, so that the step sizes of plain training serve. Deployed at
    temperature 1 the logits are T times larger. That this hides gradients is for the evaluation to find.

    Soft labels are the batch's own (``Batch.soft``, cached), or the teacher's answer to the same crops, in evaluation
    mode and without graph. The loss is the cross entropy with them, and a soft Dice that is lowest where both agree.

    Args:
        network: what learns.
        head: what its channels mean.
        teacher: who is asked on line; None where every batch brings its soft labels.
        temperature: T.

    Raises:
        ConfigError: another head than the teacher's, or a temperature that is not positive.
    """

    def __init__(self, network: nn.Module, head: Head, teacher: Segmenter | None, temperature: float) -> None:
        super().__init__()
        check_temperature(temperature)
        if teacher is not None:
            check_same_head(head, teacher.head)
        self.network = network
        self.head = head
        self.temperature = temperature
        self.teacher = teacher  # no module of this one: neither trained, nor sent to other ranks

    def forward(self, batch: Batch) -> Float[Tensor, ""]:
        """The mean loss of a batch.

        Raises:
            ConfigError: nobody says what is to be learnt.
        """
        wanted = self._wanted(batch)
        logits = self.head.logits(self.network(batch.z)) / self.temperature
        apart = -(wanted * logits.log_softmax(1)).sum(1).flatten(1).mean(1)
        return torch.mean(apart + _soft_dice_apart(logits.softmax(1), wanted, self.head.grouped))

    def _wanted(self, batch: Batch) -> Float[Tensor, "b classes *targets"]:
        """The probabilities to be learnt."""
        if batch.soft is not None:
            return spread(self.head, batch.soft.to(batch.z.dtype))
        if self.teacher is None:
            raise ConfigError(
                "there is no teacher to learn from",
                got="a batch without soft labels",
                advice="give the lesson a teacher, or the examples their soft labels",
            )
        return soft_answer(self.teacher, batch.z, self.temperature)


def soft_answer(
    teacher: Segmenter, z: Float[Tensor, "b c *s"], temperature: float
) -> Float[Tensor, "b classes *targets"]:
    """What a teacher's bare network says of crops, softened: softmax(logits / T), without graph.

    Always in float32, as soft labels that are kept are made: in bf16 probabilities would be off by up to 0.05.
    """
    whole = torch.autocast(z.device.type, enabled=False)
    with held_still(teacher.modules()), torch.no_grad(), whole:
        logits: Tensor = teacher.head.logits(teacher.network(z))
        return (logits / temperature).softmax(1)


def spread(head: Head, soft: Float[Tensor, "b k *s"]) -> Float[Tensor, "b classes *targets"]:
    """Soft labels by channel as probabilities over the classes of each target; what was padded is background.

    Padding has no probability at all in a softmax head: such voxels become background. In a sigmoid head 0 says it.
    """
    if head.grouped:
        return torch.stack([1 - soft, soft], 1)
    total = soft.sum(1, keepdim=True)
    nothing = soft.new_tensor(head.nothing).softmax(0).view(1, -1, *[1] * (soft.ndim - 2))
    return torch.where(total > 0, soft / total.clamp(min=torch.finfo(soft.dtype).tiny), nothing)


def check_temperature(temperature: float) -> None:
    """Refuse what is no temperature.

    Raises:
        ConfigError: not positive, or not finite.
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise ConfigError(
            "a temperature is a positive number",
            got=temperature,
            expected="1 for plain training, for example 10 for distillation",
        )


def check_same_head(student: Head, teacher: Head) -> None:
    """Refuse a teacher whose channels mean something else.

    Raises:
        ConfigError: another kind of head, other channels or another order, or other numbers in the label map.
    """

    def told(head: Head) -> tuple[str, tuple[str, ...], dict[str, int], list[set[str]]]:
        scheme = head.scheme
        return head.name, head.channels, dict(scheme.numbers), [set(scheme.members(name)) for name in head.channels]

    if told(student) != told(teacher):
        raise ConfigError(
            "teacher and student have different heads",
            got=f"a teacher with {teacher.name} over {', '.join(teacher.channels)}",
            expected=f"{student.name} over {', '.join(student.channels)}, with the same label numbers",
            advice="train the teacher with the head of its student",
        )


def _soft_dice_apart(
    shares: Float[Tensor, "b classes *targets"], wanted: Float[Tensor, "b classes *targets"], grouped: bool
) -> Float[Tensor, "b"]:
    """1 - 2 Σ pq / (Σ p² + Σ q²), averaged over the classes but background: 0 exactly where p = q.

    Milletari et al. 2016 (arXiv:1606.04797), whose squares matter here: without them soft labels are no optimum. One
    voxel is added to both parts of the fraction.
    """
    axes = tuple(range(2 + int(grouped), shares.ndim))
    p, q = shares[:, 1:], wanted[:, 1:]
    both = (p * q).sum(axes)
    return (1 - (2 * both + 1) / (p.square().sum(axes) + q.square().sum(axes) + 1)).flatten(1).mean(1)

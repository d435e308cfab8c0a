"""medadv: how well image models withstand adversarial input, measured and improved.

The rooms, each importing only what stands below it:

- ``medadv.study``: an experiment from its YAML to its tested verdict (``run``);
- ``medadv.defense``: the one training loop, and lessons for it;
- ``medadv.victims``: predictors, differentiable from stored voxels (``Segmenter``, ``open_victim``);
- ``medadv.data``: cases and volumes (``read``, ``write``, ``brats``, ``msd_cohort``, ``phantom``);
- ``medadv.attack``: the attack core (``Attack``, ``Budget``, ``fgsm``, ``ifgsm``, ``tifgsm``, ``pgd``);
- ``medadv.labels``, ``medadv.atomic``, ``medadv.errors``: below all of them.

Names are imported when they are first used: ``import medadv`` costs nothing.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medadv.attack.budget import Budget as Budget
    from medadv.attack.exchange import Exchange as Exchange
    from medadv.attack.exchange import Strong as Strong
    from medadv.attack.joint import Draws as Draws
    from medadv.attack.joint import Joint as Joint
    from medadv.attack.joint import Together as Together
    from medadv.attack.loop import Adversarial as Adversarial
    from medadv.attack.loop import Attack as Attack
    from medadv.attack.losses import Tempered as Tempered
    from medadv.attack.objective import Apart as Apart
    from medadv.attack.objective import Away as Away
    from medadv.attack.objective import Towards as Towards
    from medadv.attack.presets import dag as dag
    from medadv.attack.presets import fgsm as fgsm
    from medadv.attack.presets import fgsm_ll as fgsm_ll
    from medadv.attack.presets import ifgsm as ifgsm
    from medadv.attack.presets import ifgsm_ll as ifgsm_ll
    from medadv.attack.presets import klpgd as klpgd
    from medadv.attack.presets import kurakin as kurakin
    from medadv.attack.presets import mifgsm as mifgsm
    from medadv.attack.presets import pgd as pgd
    from medadv.attack.presets import tifgsm as tifgsm
    from medadv.attack.relabel import Draw as Draw
    from medadv.attack.relabel import Fill as Fill
    from medadv.attack.relabel import Grow as Grow
    from medadv.attack.relabel import LeastLikely as LeastLikely
    from medadv.attack.relabel import Permute as Permute
    from medadv.attack.relabel import Rank as Rank
    from medadv.attack.relabel import Shift as Shift
    from medadv.attack.relabel import Turn as Turn
    from medadv.attack.relabel import erase as erase
    from medadv.attack.shape import Shape as Shape
    from medadv.attack.threat import Linf as Linf
    from medadv.attack.unbounded import Unbounded as Unbounded
    from medadv.attack.wrappers import Restarts as Restarts
    from medadv.attack.wrappers import Transfer as Transfer
    from medadv.attack.wrappers import WorstOf as WorstOf
    from medadv.data.brats import brats as brats
    from medadv.data.brats import brats_cohort as brats_cohort
    from medadv.data.case import Case as Case
    from medadv.data.case import Volume as Volume
    from medadv.data.cityscapes import cityscapes_cohort as cityscapes_cohort
    from medadv.data.coco import coco_cohort as coco_cohort
    from medadv.data.datalist import datalist_cohort as datalist_cohort
    from medadv.data.files import read as read
    from medadv.data.files import write as write
    from medadv.data.msd import msd_cohort as msd_cohort
    from medadv.data.nnunet import nnunet_cohort as nnunet_cohort
    from medadv.data.pattern import pattern_cohort as pattern_cohort
    from medadv.data.phantom import phantom as phantom
    from medadv.data.pictures import pictures as pictures
    from medadv.data.voc import voc_cohort as voc_cohort
    from medadv.labels import LabelScheme as LabelScheme
    from medadv.objects import Objects as Objects
    from medadv.study.load import load_study as load_study
    from medadv.study.run import run as run
    from medadv.victims.certainty import Certainty as Certainty
    from medadv.victims.checkpoint import save_victim as save_victim
    from medadv.victims.combine import Upsampled as Upsampled
    from medadv.victims.declared import Declared as Declared
    from medadv.victims.declared_detector import DeclaredDetector as DeclaredDetector
    from medadv.victims.defended import defended as defended
    from medadv.victims.detection import Detector as Detector
    from medadv.victims.formats.opening import load_victim as load_victim
    from medadv.victims.formats.opening import mirrored as mirrored
    from medadv.victims.formats.opening import open_victim as open_victim
    from medadv.victims.head import Sigmoid as Sigmoid
    from medadv.victims.head import Softmax as Softmax
    from medadv.victims.jpeg import Jpeg as Jpeg
    from medadv.victims.mean_field import MeanField as MeanField
    from medadv.victims.multi_scale import MultiScale as MultiScale
    from medadv.victims.normalize import Standard as Standard
    from medadv.victims.normalize import ZScore as ZScore
    from medadv.victims.random_transforms import RandomFlip as RandomFlip
    from medadv.victims.random_transforms import RandomNoise as RandomNoise
    from medadv.victims.random_transforms import RandomResizePad as RandomResizePad
    from medadv.victims.segmentation import Segmenter as Segmenter
    from medadv.victims.transforms import BitDepth as BitDepth
    from medadv.victims.transforms import GaussianSmoothing as GaussianSmoothing
    from medadv.victims.transforms import MedianSmoothing as MedianSmoothing
    from medadv.victims.transforms import Resampled as Resampled
    from medadv.victims.transforms import StraightThrough as StraightThrough
    from medadv.victims.window import SlidingWindow as SlidingWindow
    from medadv.victims.window import WholeVolume as WholeVolume

__version__ = version("medadv")

_WHERE = {
    "attack.budget": ("Budget",),
    "attack.exchange": ("Exchange", "Strong"),
    "attack.joint": ("Draws", "Joint", "Together"),
    "attack.loop": ("Adversarial", "Attack"),
    "attack.losses": ("Tempered",),
    "attack.objective": ("Apart", "Away", "Towards"),
    "attack.presets": ("dag", "fgsm", "fgsm_ll", "ifgsm", "ifgsm_ll", "klpgd", "kurakin", "mifgsm", "pgd", "tifgsm"),
    "attack.relabel": ("Draw", "Fill", "Grow", "LeastLikely", "Permute", "Rank", "Shift", "Turn", "erase"),
    "attack.shape": ("Shape",),
    "attack.threat": ("Linf",),
    "attack.unbounded": ("Unbounded",),
    "attack.wrappers": ("Restarts", "Transfer", "WorstOf"),
    "data.brats": ("brats", "brats_cohort"),
    "data.case": ("Case", "Volume"),
    "data.cityscapes": ("cityscapes_cohort",),
    "data.coco": ("coco_cohort",),
    "data.datalist": ("datalist_cohort",),
    "data.files": ("read", "write"),
    "data.msd": ("msd_cohort",),
    "data.nnunet": ("nnunet_cohort",),
    "data.pattern": ("pattern_cohort",),
    "data.phantom": ("phantom",),
    "data.pictures": ("pictures",),
    "data.voc": ("voc_cohort",),
    "labels": ("LabelScheme",),
    "objects": ("Objects",),
    "study.load": ("load_study",),
    "study.run": ("run",),
    "victims.certainty": ("Certainty",),
    "victims.checkpoint": ("save_victim",),
    "victims.combine": ("Upsampled",),
    "victims.declared": ("Declared",),
    "victims.declared_detector": ("DeclaredDetector",),
    "victims.defended": ("defended",),
    "victims.detection": ("Detector",),
    "victims.formats.opening": ("load_victim", "mirrored", "open_victim"),
    "victims.head": ("Sigmoid", "Softmax"),
    "victims.jpeg": ("Jpeg",),
    "victims.mean_field": ("MeanField",),
    "victims.multi_scale": ("MultiScale",),
    "victims.normalize": ("Standard", "ZScore"),
    "victims.random_transforms": ("RandomFlip", "RandomNoise", "RandomResizePad"),
    "victims.segmentation": ("Segmenter",),
    "victims.transforms": ("BitDepth", "GaussianSmoothing", "MedianSmoothing", "Resampled", "StraightThrough"),
    "victims.window": ("SlidingWindow", "WholeVolume"),
}
_MODULE = {name: f"medadv.{module}" for module, names in _WHERE.items() for name in names}

__all__ = sorted(_MODULE)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _MODULE:
        raise AttributeError(f"module 'medadv' has no attribute {name!r}")
    return getattr(import_module(_MODULE[name]), name)


def __dir__() -> list[str]:
    """The public names."""
    return [*__all__, "__version__"]

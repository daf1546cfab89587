"""Data sets as uint8 tensors. Knows nothing of networks, runs or Hydra. Recorded configurations cite these names."""

from cifarsweep.data.augment import Augmentation, Batcher
from cifarsweep.data.dataset import DataSet
from cifarsweep.data.image_file import read_image
from cifarsweep.data.image_folder import load_image_folder
from cifarsweep.data.shapes import load_shapes
from cifarsweep.data.torchvision_sets import load_torchvision

__all__ = ["Augmentation", "Batcher", "DataSet", "load_image_folder", "load_shapes", "load_torchvision", "read_image"]

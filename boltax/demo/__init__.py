"""`boltax demo`: a ResNet on real images, from data to pictures of its mistakes.

    from boltax.demo import DemoClassifier, run

    result = run("digits")                                      # what `boltax demo` does
    trainer = DemoClassifier.load_from_checkpoint(result.log_dir)

The parts are here too, for programs of one's own.
"""

from boltax.demo._cifar import load_cifar10
from boltax.demo._classifier import DemoClassifier
from boltax.demo._data import DemoData, load_digits, load_fashion_mnist
from boltax.demo._demo import DemoResult, run
from boltax.demo._model import ResNet

__all__ = [
    "DemoClassifier",
    "DemoData",
    "DemoResult",
    "ResNet",
    "load_cifar10",
    "load_digits",
    "load_fashion_mnist",
    "run",
]

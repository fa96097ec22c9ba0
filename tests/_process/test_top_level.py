"""What a file does as it is loaded, by its source alone."""

import pytest

from boltax._process._top_level import training_call

TRAINS = {
    "a call": "trainer.train_model(loader)",
    "a call without arguments": "trainer.train_model()",
    "an assignment": "metrics = trainer.train_model(loader)",
    "a loop": "for seed in range(3):\n    make(seed).train_model(loader)",
    "a with": "with open('log') as file:\n    trainer.train_epoch(loader)",
    "a try": "try:\n    trainer.train_model(loader)\nexcept KeyError:\n    pass",
    "another if": "if True:\n    trainer.train_model(loader)",
    "the else of a guard": "if __name__ == '__main__':\n    pass\nelse:\n    trainer.lr_find(data)",
    "the body of a class": "class Mine:\n    found = trainer.train_model(loader)",
    "a comprehension": "found = [make(seed).train_model(loader) for seed in range(3)]",
    "a function that trains": "def main():\n    t.train_model(loader)\nmain()",
    "a function of a function": "def a():\n    t.train_model(d)\ndef b():\n    a()\nb()",
    "functions in a circle": "def a():\n    b()\ndef b():\n    a()\n    t.train_model(d)\na()",
}
DOES_NOT = {
    "nothing": "",
    "a guard": "if __name__ == '__main__':\n    trainer.train_model(loader)",
    "a guard the other way round": "if '__main__' == __name__:\n    trainer.train_model(loader)",
    "a guard with more": "if __name__ == '__main__' and go:\n    trainer.train_model(loader)",
    "a function": "def main():\n    trainer.train_model(loader)",
    "a function behind a guard": (
        "def main():\n    t.train_model(d)\nif __name__ == '__main__':\n    main()"
    ),
    "a method": "class Mine:\n    def train(self):\n        self.trainer.train_model(loader)",
    "a lambda": "run = lambda: trainer.train_model(loader)",
    "a trainer": "trainer = make_trainer()\ntrainer.bind_model()",
    "functions in a circle": "def a():\n    b()\ndef b():\n    a()\na()",
}


@pytest.mark.parametrize("source", TRAINS.values(), ids=TRAINS)
def test_training_is_found(source):
    assert training_call(source) is not None


@pytest.mark.parametrize("source", DOES_NOT.values(), ids=DOES_NOT)
def test_what_does_not_train_is_let_through(source):
    assert training_call(source) is None


def test_the_line_and_the_call_are_named():
    assert training_call("x = 1\nt = trainer.train_model(x)\n") == (2, "trainer.train_model(...)")

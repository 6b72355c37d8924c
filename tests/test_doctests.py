"""Every name of a public `__all__` has an example that runs."""

import doctest
import importlib
import inspect

import pytest

MODULES = ("unialign_gen", "unialign_gen.objectives", "unialign_gen.encoders", "unialign_gen.pipelines", "unialign_gen.serving")


def names():
    for module in MODULES:
        found = importlib.import_module(module)
        for name in found.__all__:
            value = getattr(found, name)
            if inspect.isclass(value) or inspect.isroutine(value):
                yield pytest.param(value, id=f"{module}.{name}")


@pytest.mark.parametrize("value", list(names()))
def test_the_example_runs(value):
    found = [t for t in doctest.DocTestFinder(recurse=False).find(value, globs={}) if t.examples]
    assert found, f"{value.__name__} has no example in its docstring"
    for test in found:
        test.globs = dict(vars(inspect.getmodule(value)))
        result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE).run(test)
        assert result.failed == 0

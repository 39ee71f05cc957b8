import doctest

import ntk_helpers as ntk


def test_example_of_the_package():
    result = doctest.testmod(ntk)
    assert result.failed == 0 and result.attempted > 0


def test_every_public_name_exists_and_is_documented():
    assert sorted(ntk.__all__) == ntk.__all__
    for name in ntk.__all__:
        assert getattr(ntk, name).__doc__

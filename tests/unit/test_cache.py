"""What is kept of a store stays within its bound."""

from concurrent.futures import ThreadPoolExecutor

from crossdock.store.cache import Cache


def test_those_used_longest_ago_go_first() -> None:
    cache: Cache[str, int] = Cache(100)
    for number, key in enumerate("abcd"):
        cache.put(key, number, 25)
    assert cache.get("a") == 0
    cache.put("e", 4, 30)
    assert [cache.get(key) for key in "abcde"] == [0, None, None, 3, 4]
    assert cache.nbytes == 80


def test_what_is_too_large_is_not_kept_and_drives_nothing_out() -> None:
    cache: Cache[str, int] = Cache(100)
    cache.put("a", 1, 60)
    cache.put("b", 2, 101)
    assert (cache.get("a"), cache.get("b"), cache.nbytes) == (1, None, 60)


def test_the_first_of_two_values_stays() -> None:
    cache: Cache[str, int] = Cache(100)
    cache.put("a", 1, 60)
    cache.put("a", 2, 60)
    assert (cache.get("a"), cache.nbytes) == (1, 60)


def test_many_threads_keep_the_bound() -> None:
    cache: Cache[int, int] = Cache(1_000)

    def work(seed: int) -> None:
        for i in range(2_000):
            key = (seed * 7919 + i * 31) % 97
            assert cache.get(key) in {None, key}
            cache.put(key, key, 10 + key)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert cache.nbytes <= 1_000
    assert cache.nbytes == sum(10 + k for k in range(97) if cache.get(k) is not None)

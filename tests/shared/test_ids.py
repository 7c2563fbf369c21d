from shared.ids import new_id


def test_ids_are_unique_of_one_length_and_sort_by_time() -> None:
    made = [new_id("edit", second) for second in range(1_700_000_000, 1_700_001_000)]
    assert len({len(one) for one in made}) == 1
    assert len(made[0]) == len("edit_") + 26
    assert sorted(made) == made
    assert len({new_id("edit", 1.0) for _ in range(10_000)}) == 10_000

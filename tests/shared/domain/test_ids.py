from shared.domain.ids import first_id, new_id


def test_ids_are_unique_of_one_length_and_sort_by_time() -> None:
    made = [new_id("edit", second) for second in range(1_700_000_000, 1_700_001_000)]
    assert len({len(one) for one in made}) == 1
    assert len(made[0]) == len("edit_") + 26
    assert sorted(made) == made
    assert len({new_id("edit", 1.0) for _ in range(10_000)}) == 10_000


def test_the_first_id_of_a_moment_lies_before_all_that_were_made_then_and_behind_all_that_were_made_before() -> None:
    moment = 1_700_000_000.5
    assert max(new_id("edit", moment - 0.001) for _ in range(100)) < first_id("edit", moment)
    assert first_id("edit", moment) < min(new_id("edit", moment) for _ in range(100))

"""Captions: closed vocabulary, several phrasings, true statements, no camera unless asked for."""

import pytest

from camctrl_jax.worlds import caption_phrasings, sample_world, static_variant, vocabulary
from camctrl_jax.worlds.captions import words

CAMERA_WORDS = {"camera", "pans", "tilts", "dollies", "trucks", "orbits", "arcs", "curves", "rises", "sinks"}


@pytest.fixture(scope="module")
def worlds():
    return [sample_world(seed) for seed in range(40)]


def test_every_word_is_in_the_vocabulary(worlds):
    known = set(vocabulary())
    assert vocabulary() == tuple(sorted(known))
    for world in worlds:
        for world_or_static in (world, static_variant(world)):
            for caption in caption_phrasings(world_or_static, camera=True):
                assert set(words(caption)) <= known, caption
                assert all(character.islower() or character in " ," for character in caption)


def test_phrasings_are_several_and_of_bounded_length(worlds):
    for world in worlds:
        assert len(set(world.captions)) == len(world.captions) >= 4
        lengths = [len(words(caption)) for caption in world.captions]
        assert min(lengths) <= 16
        assert max(lengths) <= 32


def test_captions_do_not_speak_of_the_camera_unless_asked(worlds):
    for world in worlds:
        assert world.captions == caption_phrasings(world)
        assert not any(CAMERA_WORDS & set(words(caption)) for caption in world.captions)
        for plain, told in zip(world.captions, caption_phrasings(world, camera=True)):
            assert told.startswith(plain + ", the camera ")
            if world.path_class == "static":
                assert told.endswith("the camera stays still")


def test_captions_name_the_first_moving_object_and_the_ground(worlds):
    ground = {"plaza": "plaza", "planks": "planks"}
    for world in worlds:
        in_view = [item for item in world.objects if item.visible]
        actor = ([item for item in in_view if item.motion != "rest"] or in_view)[0]
        assert f"{actor.color} {actor.shape}" in world.captions[0]
        assert actor.second_color in world.captions[1] or actor.material not in (
            "striped",
            "checkered",
            "dotted",
        )
        for caption in world.captions:
            assert ground.get(world.ground, world.ground) in caption


def test_slides_go_where_the_caption_says(worlds):
    checked = 0
    for world in worlds:
        for item in world.objects:
            if item.motion == "slide":
                shift = world.scene.position[-1, item.slot] - world.scene.position[0, item.slot]
                axis, sign = {"right": (0, 1), "left": (0, -1), "away": (2, 1), "closer": (2, -1)}[
                    item.direction
                ]
                assert sign * shift[axis] > 0.1
                checked += 1
    assert checked > 10


def test_captions_of_a_static_variant_have_nothing_moving(worlds):
    moving = {"spins", "bounces", "hops", "shuttles", "slides", "circles", "forth", "moves", "turns", "rolls"}
    for world in worlds:
        assert not any(moving & set(words(caption)) for caption in static_variant(world).captions)

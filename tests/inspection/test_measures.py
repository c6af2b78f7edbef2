"""Measures against plain computations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lmms_fixattn import intervene, make_method
from lmms_fixattn.inspection.attention import AttentionShares, measure_attention
from lmms_fixattn.inspection.gap import measure_gap, modality_gap
from lmms_fixattn.inspection.recording import Recording, record_attention
from lmms_fixattn.inspection.sensitivity import measure_sensitivity
from lmms_fixattn.inspection.session import read_methods
from lmms_fixattn.inspection.tokens import measure_tokens

pytestmark = pytest.mark.system

NEW_TOKENS = 24


def test_reading_an_answer_records_what_giving_it_did(session, prompt):
    method = make_method("fixattn", alpha=1.5)
    reply = session.answer(prompt, method, NEW_TOKENS)
    read = session.read(prompt, reply.tokens, method)
    with intervene(session.model, method), record_attention(session.model) as recorder:
        assert tuple(session._run(prompt, NEW_TOKENS)) == reply.tokens
    np.testing.assert_array_equal(read.after, recorder.recording().after)


def test_every_method_reads_the_same_answer(session, prompt):
    tokens = [17, 23, 29, 31, 37]
    shares = measure_attention(session, prompt, tokens, read_methods(["vanilla", "pai,alpha=0", "pai,alpha=2"]))
    assert [share.label for share in shares] == ["vanilla", "pai alpha=0", "pai alpha=2"]
    np.testing.assert_allclose(shares[0].image, shares[1].image, atol=1e-5)
    np.testing.assert_allclose(shares[0].image[:2], shares[2].image[:2], atol=1e-6)  # not edited, and read the same
    assert (shares[2].image[2:].mean(axis=1) > shares[0].image[2:].mean(axis=1)).all()


def test_shares_are_means_over_tokens_and_heads():
    after = np.random.default_rng(3).random((5, 3, 2, 4)).astype(np.float32)
    shares = AttentionShares.of("x", Recording(before=np.zeros_like(after), after=after))
    for layer in range(3):
        for segment in range(4):
            values = [after[step, layer, head, segment] for step in range(5) for head in range(2)]
            assert shares.by_layer[layer, segment] == pytest.approx(np.mean(values), rel=1e-6)
        assert shares.image[layer, 1] == pytest.approx(
            np.mean([after[step, layer, 1, 1] for step in range(5)]), rel=1e-6
        )


@pytest.mark.parametrize("modulation", ["proportional", "top"])
def test_sensitivity_and_gains_are_those_that_the_method_uses(session, prompt, modulation, monkeypatch):
    method = make_method("fixattn", head_modulation=modulation, layers="1-3", gamma=1)
    used = {}
    original = type(method)._head_gains

    def watched(self, rows):
        gains = original(self, rows)
        used[rows.layer] = rows.image_mass()[0].clone(), gains[0, :, 0].clone()
        return gains

    monkeypatch.setattr(type(method), "_head_gains", watched)
    with intervene(session.model, method):
        session._run(prompt, 1)
    (found,) = measure_sensitivity(session, prompt, {"it": method})
    assert sorted(used) == [1, 2]
    for layer, (sensitivity, gains) in used.items():
        np.testing.assert_allclose(found.sensitivity[layer], sensitivity, atol=1e-6)
        np.testing.assert_allclose(found.gains[layer], gains, atol=1e-5)
    assert np.isnan(found.gains[[0, 3]]).all()
    assert measure_sensitivity(session, prompt, {"v": make_method("vanilla")})[0].gains is None


def test_token_sets_are_those_that_the_method_amplifies(session, prompt):
    method = make_method("fixattn", alpha=5, beta=3, spatial_ratio=0.2)
    choice = measure_tokens(session, prompt, "it", method)
    either = choice.sets["local"] | choice.sets["spatial"]
    gains = 5 * either + 3 * choice.sets["summary"]
    np.testing.assert_array_equal(gains.ravel(), method.select(session.vision(prompt, method.vision_parts))[0].numpy())
    assert not (either & choice.sets["summary"]).any()
    assert choice.picture.shape == (140, 140, 3)
    ranked = choice.measures["local"].ravel().argsort()[::-1][:25]
    local = set(np.flatnonzero(choice.sets["local"]))
    assert local == set(ranked) - set(np.flatnonzero(choice.sets["summary"]))
    assert "spatial" not in measure_tokens(session, prompt, "it", make_method("fixattn")).sets
    with pytest.raises(ValueError, match="pai selects no image tokens; choose fixattn"):
        measure_tokens(session, prompt, "pai", make_method("pai"))


def test_the_picture_is_the_file_as_the_processor_crops_it(session, prompt):
    from PIL import Image

    from lmms_fixattn.inspection.command import DEMO_IMAGE

    raw = np.asarray(Image.open(DEMO_IMAGE).convert("RGB")) / 255  # scenes have the tower's own size
    np.testing.assert_allclose(session.picture(prompt), raw, atol=0.01)


def test_the_gap_is_measured_between_the_decoders_inputs(session, prompt):
    gap = measure_gap(session, prompt, [17, 23])
    tower = session.model.model
    with torch.inference_mode():
        image = torch.cat(tower.get_image_features(**prompt.images[0]).pooler_output).numpy()
    words = session.model.get_input_embeddings().weight.detach().float().numpy()
    assert len(gap.embedded.image) == len(image) == 100
    assert len(gap.embedded.vocabulary) == len(words)
    last = max(np.flatnonzero(np.array(prompt.ids) == session.model.config.image_token_id))
    assert len(gap.embedded.question) == len(prompt.ids) - 1 - last
    assert gap.embedded.distance == pytest.approx(np.linalg.norm(image.mean(0) - words.mean(0)), rel=1e-4)
    np.testing.assert_array_equal(gap.embedded.answer, gap.embedded.vocabulary[[17, 23]])


def test_the_plane_keeps_most_variance_and_both_modalities_weigh_alike():
    chance = np.random.default_rng(5)
    image = (chance.normal(size=(7, 5)) + 3).astype(np.float32)
    words = chance.normal(size=(41, 5)).astype(np.float32)
    words[11] = 0
    gap = modality_gap(image, image[:2], words[:3], words)
    # Repeated so that both have 7 * 41 rows, plain principal components weigh them alike.
    rows = np.concatenate([np.repeat(image, 41, axis=0), np.repeat(words, 7, axis=0)]).astype(float)
    singular = np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False) ** 2
    np.testing.assert_allclose(gap.embedded.explained, singular[:2] / singular.sum(), rtol=1e-4)
    centred = np.concatenate([gap.embedded.image, gap.embedded.vocabulary]).mean
    assert np.isfinite(centred())
    unit = [row / np.linalg.norm(row) if row.any() else row for row in (*image, *words)]
    pairs = [[float(a @ b) for b in unit[7:]] for a in unit[:7]]
    assert gap.cosine[1] == pytest.approx(np.mean(pairs), abs=1e-5)
    assert gap.length[0] == pytest.approx(np.mean([np.linalg.norm(row) for row in image]), rel=1e-5)
    # Distances in the plane are at most those in the space, and equal for points that lie in it.
    flat = np.zeros((3, 5), dtype=np.float32)
    flat[:, 1:3] = chance.normal(size=(3, 2))
    plane = modality_gap(flat, flat, flat, flat + np.float32([0, 2, 0, 0, 0])).embedded
    between = np.linalg.norm(plane.image[:, None] - plane.image[None], axis=-1)
    np.testing.assert_allclose(between, np.linalg.norm(flat[:, None] - flat[None], axis=-1), atol=1e-4)


def test_methods_are_read_as_in_model_args_and_told_apart():
    methods = read_methods(["pai", "pai,alpha=0.5", "fixattn,layers=2-,spatial_ratio=0.05"])
    assert list(methods) == ["pai", "pai alpha=0.5", "fixattn layers=2- spatial_ratio=0.05"]
    assert methods["pai alpha=0.5"] == make_method("pai", alpha=0.5)
    with pytest.raises(ValueError, match="pai is given twice"):
        read_methods(["pai", "pai"])
    with pytest.raises(ValueError, match="did you mean 'alpha'"):
        read_methods(["pai,alpa=1"])

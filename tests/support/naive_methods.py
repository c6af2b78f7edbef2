"""The formulas of the methods in plain loops, for naive_text.py: one key and one head at a time."""

from __future__ import annotations

import math

import numpy as np
import torch
from naive_text import Fix, log_softmax, modulate, read, softmax, without_pictures


def columns(row, *kinds):
    return [j for j, kind in enumerate(row.kinds) if kind in kinds]


def hgai(alpha, layers):
    def edit(row):
        for j in columns(row, "image"):
            push = alpha * sum(abs(scores[j]) for scores in row.scores) / len(row.scores)
            for scores in row.scores:
                scores[j] += push

    return Fix(edit_scores=edit, layers=layers)


def vaf(enhance, suppress, layers):
    def edit(row):
        for scores in row.scores:
            for j in columns(row, "image"):
                scores[j] *= enhance
            for j in columns(row, "before"):
                scores[j] *= suppress

    return Fix(edit_scores=edit, text_rows=True, layers=layers)


def by_prompt(alpha, beta, share, layers, gamma, modulation="off", g_max=2.0, edit_prefill=True):
    """FixAttn with tokens by what the prompt's last row attends to, averaged over heads, in each layer by itself."""
    chosen = {}

    def edit(row):
        image = columns(row, "image")
        prefill = "generated" not in row.kinds
        if not image:
            return
        if prefill:
            weights = [softmax(scores) for scores in row.scores]
            seen = [float(np.mean([head[j] for head in weights])) for j in image]
            q1, q3 = np.percentile(seen, [25, 75])
            top = sorted(range(len(image)), key=lambda i: -seen[i])[: int(share * len(image))]
            gains = [beta if x > q3 + 1.5 * (q3 - q1) else alpha if i in top else 0.0 for i, x in enumerate(seen)]
            mass = [float(sum(head[j] for j in image)) for head in weights]
            chosen[row.layer] = gains, modulate(mass, Fix(modulation=modulation, g_max=g_max))
        gains, heads = chosen[row.layer]
        if edit_prefill or not prefill:
            for scores, of_head in zip(row.scores, heads, strict=True):
                for j, gain in zip(image, gains, strict=True):
                    scores[j] += gain * of_head * abs(scores[j])

    return Fix(edit_scores=edit, layers=layers, gamma=gamma)


def iat(alpha, layers):
    def edit(row):
        for scores in row.scores:
            for j in columns(row, "generated"):
                scores[j] += alpha * abs(scores[j])

    return Fix(edit_scores=edit, layers=layers)


def spin(kept, factor, layers):
    def edit(row):
        image = columns(row, "image")
        if not image:
            return
        visual = [sum(scores[j] for j in image) for scores in row.scores]
        ranked = sorted(range(len(visual)), key=lambda head: -visual[head])
        for head in ranked[int(kept * len(visual)) :]:
            row.weights[head] = row.weights[head] * factor

    return Fix(edit_weights=edit, layers=layers)


def adhh(heads, threshold, depth):
    def edit(row):
        text = columns(row, "after", "generated")
        for head, weights in enumerate(row.weights):
            if (row.layer, head) in heads and text and sum(weights[j] for j in text) >= threshold:
                for j in text:
                    weights[j] = 0.0

    return Fix(edit_weights=edit, layers=(0, depth))


def var(dims, tau, rho, image_mass, p, layers):
    def is_sink(state):
        return max(abs(state[d]) for d in dims) / np.sqrt((state * state).mean() + 1e-6) > tau

    def edit(row):
        image = columns(row, "image")
        sinks = [j for j in columns(row, "before", "image", "after") if is_sink(row.inputs[j])]
        image_sinks = [j for j in image if j in sinks]
        others = [j for j in image if j not in sinks]
        if not image_sinks:
            return
        for head, weights in enumerate(row.weights):
            mass = sum(weights[j] for j in image)
            portion = sum(weights[j] for j in image_sinks) / sum(weights[j] + 1e-6 for j in image)
            rest = sum(weights[j] for j in others)
            if mass < image_mass or portion > rho or rest == 0:
                continue
            freed = (1 - p) * sum(weights[j] for j in sinks)
            new = weights.copy()
            for j in sinks:
                new[j] = p * weights[j]
            for j in others:
                new[j] = weights[j] + freed * weights[j] / rest
            row.weights[head] = new

    return Fix(edit_weights=edit, text_rows=True, layers=layers)


def adaiat(ratios, thresholds, alpha, layers):
    def edit(row):
        generated = columns(row, "generated")
        if not generated:
            return
        attention = sum(sum(weights[j] for j in generated) / len(generated) for weights in row.weights)
        if attention >= thresholds[row.layer]:
            return
        for head, weights in enumerate(row.weights):
            new = weights.copy()
            for j in generated:
                new[j] = weights[j] * max(0.0, 1 + alpha * (ratios[row.layer][head] - 1))
            row.weights[head] = new / new.sum()

    return Fix(edit_weights=edit, layers=layers)


def contrasted(weight_at, cutoff, branch):
    """Lean away from a branch by the weight at each step, among tokens that are not too unlikely."""

    def guide(scores, step):
        lc, lu, weight = log_softmax(scores), log_softmax(step.branch), weight_at(step.index)
        out = np.array([(1 + weight) * c - weight * u for c, u in zip(lc, lu, strict=True)])
        return log_softmax(np.where(np.exp(lc) >= cutoff * np.exp(lc).max(), out, -np.inf))

    return Fix(branch=branch, guide=guide)


def vcd(alpha, cutoff, noise_step, seed):
    def branch(model, ids, pictures):
        return read(model, ids, noised(pictures, noise_step, seed))

    return contrasted(lambda index: alpha, cutoff, branch)


def noised(pictures, step, seed):
    """Pictures after so many steps of noise, one step's share of the signal after the other; each from the seed."""
    kept = 1.0
    for t in range(step + 1):
        kept *= 1 - (1e-5 + (0.005 - 1e-5) / (1 + math.exp(6 - 12 * t / 999)))
    noisy = []
    for picture in pictures:
        pixels = picture["pixel_values"]
        noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(seed))
        noisy.append(picture | {"pixel_values": math.sqrt(kept) * pixels + math.sqrt(1 - kept) * noise})
    return noisy


def icd(alpha, cutoff, words):
    def branch(model, ids, pictures):
        start = int(ids[0] == model.config.get_text_config().bos_token_id)
        if model.config.model_type.startswith("qwen"):
            start = 3  # behind a turn's header: <|im_start|>, the role, a newline
        return read(model, [*ids[:start], *words, *ids[start:]], pictures)

    return contrasted(lambda index: alpha, cutoff, branch)


def m3id(rate, cutoff):
    def branch(model, ids, pictures):
        return read(model, without_pictures(model, ids), [])

    def weight(index):
        g = math.exp(-rate * (index + 1))
        return (1 - g) / g

    return contrasted(weight, cutoff, branch)


def dola(alpha, cutoff, layers):
    def divergence(p, q):
        return sum(x * math.log(2 * x / (x + y)) if x else 0.0 for x, y in zip([*p, *q], [*q, *p], strict=True)) / 2

    def guide(scores, step):
        p = softmax(scores)
        early = max((step.early(layer, False) for layer in layers), key=lambda e: divergence(p, softmax(e)))
        out = log_softmax(scores) - alpha * log_softmax(early)
        return log_softmax(np.where(p >= cutoff * p.max(), out, -np.inf))

    return Fix(guide=guide)


def deco(alpha, top_p, top_k, layers):
    def guide(scores, step):
        p = softmax(scores)
        candidates, total = [], 0.0
        for token in sorted(range(len(p)), key=lambda token: -p[token])[:top_k]:
            if total < top_p:
                candidates.append(token)
            total += p[token]
        early = [step.early(layer, True) for layer in layers]
        highest, best = max((softmax(e)[token], index) for index, e in enumerate(early) for token in candidates)
        out = np.full(len(p), -np.inf)
        for token in candidates:
            out[token] = scores[token] + alpha * highest * early[best][token]
        return log_softmax(out)

    return Fix(guide=guide)


def in_turn(first, second):
    """Guide by one after the other, of which only the first may have a branch."""
    return Fix(branch=first.branch, guide=lambda scores, step: second.guide(first.guide(scores, step), step))
